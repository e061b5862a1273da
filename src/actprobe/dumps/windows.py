"""Dumps of SAE codes kept per (window, latent): from windows to token-level CSR.

A chunk holds `nonzero_activations` [n, L], the codes of one latent at the L tokens of one window,
`data_indices` [n], the window, and `neuron_indices` [n], the latent; rows are sorted by both and
cover every pair with a code. Here a row becomes a token, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.dumps.chunks import Chunk, ignored, token_arrays, write
from actprobe.dumps.records import AssembleTarget
from actprobe.dumps.tokens import Tokens
from actprobe.files import Array, as_float32, check_finite, is_float, is_integer

_NAMES = ("nonzero_activations", "data_indices", "neuron_indices")
_VALUES = 1 << 20  # codes in memory at a time
_INT32 = 2**31
# Without tokens: windows without any code, and for each that has one; more means a broken index.
_SILENT, _SILENT_EACH = 100_000, 100


@dataclass(frozen=True)
class _Slice:
    """Rows [start, stop) of one chunk, whole windows, with `nnz` codes that are not zero."""

    chunk: int
    start: int
    stop: int
    last_window: int
    nnz: int


def tokens_csr(
    codes: np.ndarray, window: np.ndarray, latent: np.ndarray, first: int, last: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of whole windows as CSR with one row per token.

    codes: float32 [n, L]; window, latent: [n], sorted by both; first, last: windows to cover.
    Returns data float32 [nnz], indices int32 [nnz] ascending in each row, and the number of codes
    of each token [(last - first + 1) L].
    """
    length = codes.shape[1]
    flat = np.flatnonzero(codes)
    row, at = np.divmod(flat, length)
    token = (window[row] - first) * length + at
    order = np.argsort(token, kind="stable")  # keeps the latents of a token ascending
    counts = np.bincount(token, minlength=(last - first + 1) * length)
    return codes.ravel()[flat[order]], latent[row[order]].astype(np.int32), counts


def assemble(t: AssembleTarget, chunks: Sequence[Chunk], tokens: Tokens | None) -> Path:
    """Write the latents artefact of a target: CSR `data` float32, `indices` int32, `indptr` int64
    [T+1], `shape` int64 [2], `l0` int32 [T], with `offsets` [N+1] of the windows and `token_ids`
    [T]. Tokens that are padding are left out.

    The chunks are read twice, the first time to check and to count. Returns the sealed part.
    Raises BadInput naming the file for wrong shapes, rows that are not in order of (window,
    latent), or values that are not finite.
    """
    arrays = [_three(c) for c in chunks]
    length = arrays[0][0].shape[1]
    if any(codes.shape[1] != length for codes, _, _ in arrays):
        raise BadInput(f"{t.name}: the windows of its files differ in length")
    width = t.spec.width or 0
    tokens = None if tokens is None else tokens.by(length)
    slices, largest, seen = _survey(chunks, arrays, tokens)
    if width and largest >= width:
        raise BadInput(f"{t.name}: latent {largest}, expected fewer than {width}")
    n = slices[-1].last_window + 1
    if tokens is not None:
        given = len(tokens.places) - 1
        if given < n or (np.diff(tokens.places) != length).any():
            raise BadInput(
                f"{t.name}: codes for {n} windows of {length} tokens do not fit the tokens: "
                f"{tokens.places[-1]} in {given} windows"
            )
        n, offsets = given, tokens.offsets
    elif n - seen > _SILENT + _SILENT_EACH * seen:
        raise BadInput(f"{t.name}: {n - seen} windows without a code, {seen} with one")
    else:
        offsets = np.arange(n + 1, dtype=np.int64) * length
    small, rows = token_arrays(tokens, offsets), int(offsets[-1])
    small["shape"] = np.array([rows, width or largest + 1])
    nnz = np.cumsum([0, *(s.nnz for s in slices)])
    shapes = {name: (a.shape, a.dtype) for name, a in small.items()}
    shapes["data"], shapes["indices"] = ((nnz[-1],), np.dtype("f4")), ((nnz[-1],), np.dtype("i4"))
    shapes["indptr"], shapes["l0"] = ((rows + 1,), np.dtype("i8")), ((rows,), np.dtype("i4"))
    facts = {
        "dump": t.loader,
        "chunks": [
            {"file": c.file, "digest": c.digest, "rows": [0, codes.shape[0]]}
            for c, (codes, _, _) in zip(chunks, arrays, strict=True)
        ],
        "ignored": ignored(chunks, _NAMES),
    }
    with store.Part(t.path, t.record, shapes, len(slices) + 1, facts) as part:
        for unit in part.pending:
            if unit == len(slices):
                part["indptr"][0] = 0
                for name, a in small.items():
                    write(part, name, a)
            else:
                s = slices[unit]
                first = slices[unit - 1].last_window + 1 if unit else 0
                last = s.last_window if unit + 1 < len(slices) else n - 1
                codes, window, latent = _read(arrays[s.chunk], s.start, s.stop, tokens)
                data, indices, counts = tokens_csr(codes, window, latent, first, last)
                if tokens is not None and tokens.kept is not None:
                    counts = counts[tokens.kept[first * length : (last + 1) * length]]
                low, high = int(offsets[first]), int(offsets[last + 1])
                part["data"][nnz[unit] : nnz[unit + 1]] = data
                part["indices"][nnz[unit] : nnz[unit + 1]] = indices
                part["indptr"][low + 1 : high + 1] = nnz[unit] + np.cumsum(counts)
                part["l0"][low:high] = counts
            part.mark(unit)
        return part.finish()


Three = tuple[Array, Array, Array]


def _three(chunk: Chunk) -> Three:
    try:
        codes, window, latent = (chunk.arrays[name] for name in _NAMES)
    except KeyError as e:
        found = ", ".join(chunk.arrays) or "none"
        raise BadInput(f"{chunk.file}: no array {e}; found {found}") from None
    n = codes.shape[0]
    if len(codes.shape) != 2 or 0 in codes.shape or not is_float(codes.dtype):
        raise BadInput(f"{chunk.file}: codes {codes.shape} {codes.dtype}, expected floats [n, L]")
    for name, a in zip(_NAMES[1:], (window, latent), strict=True):
        if a.shape != (n,) or not is_integer(a.dtype):
            raise BadInput(f"{chunk.file}: {name} {a.shape} {a.dtype}, expected integers [{n}]")
    return codes, window, latent


def _read(
    three: Three, start: int, stop: int, tokens: Tokens | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes float32, 0 where there is no token, windows and latents int64 of some rows."""
    window = three[1].rows(start, stop).astype(np.int64, copy=False)
    latent = three[2].rows(start, stop).astype(np.int64, copy=False)
    codes = as_float32(three[0].rows(start, stop), three[0].dtype)
    if tokens is not None and tokens.kept is not None:
        places = window[:, None] * codes.shape[1] + np.arange(codes.shape[1])
        inside = (places >= 0) & (places < len(tokens.kept))  # what is outside is refused later
        codes[~(tokens.kept[np.where(inside, places, 0)] | ~inside)] = 0
    return codes, window, latent


def _survey(
    chunks: Sequence[Chunk], arrays: Sequence[Three], tokens: Tokens | None
) -> tuple[list[_Slice], int, int]:
    """Slices of whole windows of all chunks, checked, the largest latent, and how many windows
    have codes."""
    slices: list[_Slice] = []
    largest = seen = 0
    for i, (chunk, three) in enumerate(zip(chunks, arrays, strict=True)):
        for start, stop in _cuts(three):
            codes, window, latent = _read(three, start, stop, tokens)
            check_finite(codes, chunk.file, start)
            before = slices[-1].last_window if slices else -1
            a, b = window[:-1], window[1:]
            if window[0] <= before or ((b < a) | ((b == a) & (latent[1:] <= latent[:-1]))).any():
                raise BadInput(
                    f"{chunk.file}: rows {start} to {stop - 1} are not in order of window and "
                    "latent, or repeat one"
                )
            if latent.min() < 0 or latent.max() >= _INT32:
                raise BadInput(f"{chunk.file}: latents {latent.min()} to {latent.max()}")
            seen += 1 + int((a != b).sum())
            largest = max(largest, int(latent.max()))
            slices.append(_Slice(i, start, stop, int(window[-1]), int(np.count_nonzero(codes))))
    return slices, largest, seen


def _cuts(three: Three) -> Iterator[tuple[int, int]]:
    """Row ranges of about `_VALUES` codes that end where a window ends."""
    codes, window, _ = three
    n, start = codes.shape[0], 0
    step = size = max(1, _VALUES // codes.shape[1])
    while start < n:
        stop = min(start + step, n)
        if stop < n:
            ids = window.rows(start, stop + 1)
            whole = np.flatnonzero(ids[1:] != ids[:-1])
            if not len(whole):  # one window fills it all
                step *= 2
                continue
            stop = start + int(whole[-1]) + 1
        yield start, stop
        start, step = stop, size
