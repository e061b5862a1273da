"""Assembly: the verified chunks of a dump, streamed into ordinary activation and latent artefacts.

Memory holds one slice of a few megabytes, whatever the size of the dump. An interrupted assembly
goes on at the slice where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.config import Config
from actprobe.dumps import windows
from actprobe.dumps.chunks import (
    SLICE,
    Chunk,
    ignored,
    open_chunks,
    open_token_files,
    token_arrays,
    write,
)
from actprobe.dumps.records import AssembleTarget
from actprobe.dumps.tokens import Tokens
from actprobe.files import UNKNOWN, Array, as_float32, check_finite, is_float

log = logging.getLogger(__name__)


def run(batch: Batch, config: Config, threads: int) -> None:
    """Assemble the targets of a batch one after the other; the disk is the limit, not threads."""
    with Outcome(batch, config.on_bad_dataset, store.write_bad) as out, ExitStack() as stack:
        opened: dict[tuple[str, ...], Tokens] = {}  # the sites of a dump share their tokens
        for t in batch.targets:
            with out.guard(t):
                tokens = None
                if t.args.tokens:
                    files = tuple(f.path for f in t.args.tokens)
                    if files not in opened:
                        opened[files] = stack.enter_context(open_token_files(t))
                    tokens = opened[files]
                make = windows.assemble if t.spec.content == "latents" else assemble
                with open_chunks(t.args.chunks) as chunks:
                    out.done(t, make(t, chunks, tokens))
                log.info("%s: assembled from %d files", t.name, len(t.args.chunks))


def assemble(t: AssembleTarget, chunks: Sequence[Chunk], tokens: Tokens | None) -> Path:
    """Write the activation artefact of a target from matrices [rows, d] or [windows, length, d].

    x keeps float16 and bfloat16 as they are; everything else becomes float32. Rows that the tokens
    call padding are left out. Returns the sealed part. Raises BadInput naming the file when dtype
    or shape differ between chunks, a value is not finite, or the rows do not fit the tokens or the
    texts.
    """
    found = [_matrix(c, t.spec.array) for c in chunks]
    names, matrices = [name for name, _ in found], [a for _, a in found]
    first = matrices[0]
    for c, a in zip(chunks, matrices, strict=True):
        if a.dtype != first.dtype or a.shape[1:] != first.shape[1:]:
            raise BadInput(
                f"{t.name}: {c.file} holds {a.shape} {a.dtype}, {chunks[0].file} {first.shape} "
                f"{first.dtype}; expected one dtype and equal shapes but for the rows"
            )
    length, d = (first.shape[1] if len(first.shape) == 3 else None), first.shape[-1]
    rows = _rows(t, [(c.file, a.shape[0]) for c, a in zip(chunks, matrices, strict=True)],
                 length, tokens)  # fmt: skip
    _check_texts(t, len(rows.small["n_tokens"]))
    slices = list(_slices(matrices, rows))
    dtype = {"bfloat16": "u2", "float16": "f2"}.get(first.dtype, "f4")
    shapes = {name: (a.shape, a.dtype) for name, a in rows.small.items()}
    shapes["x"] = ((slices[-1].to[1], d), np.dtype(dtype))
    facts = {
        "dump": t.loader,
        "chunks": [
            {"file": c.file, "digest": c.digest, "rows": _span(slices, i)}
            for i, c in enumerate(chunks)
        ],
        "ignored": ignored(chunks, names),
    }
    attrs = {"x": {"dtype": "bfloat16"}} if first.dtype == "bfloat16" else None
    with store.Part(t.path, t.record, shapes, len(slices) + 1, facts, attrs) as part:
        for unit in part.pending:
            if unit == len(slices):
                for name, values in rows.small.items():
                    write(part, name, values)
            else:
                s = slices[unit]
                block = matrices[s.chunk].rows(s.start, s.stop).reshape(-1, d)
                values = as_float32(block, first.dtype)
                if (kept := rows.kept_of(s.places)) is not None:
                    values[~kept] = 0  # padding may hold anything
                check_finite(values, chunks[s.chunk].file, s.start * rows.length)
                block = values if dtype == "f4" else block
                part["x"][slice(*s.to)] = block if kept is None else block[kept]
            part.mark(unit)
        return part.finish()


def _matrix(chunk: Chunk, name: str | None) -> tuple[str, Array]:
    """The one array that can be activations, or that of this name."""
    possible = {n: a for n, a in chunk.arrays.items() if _is_matrix(a) or len(chunk.arrays) == 1}
    candidates = {n: a for n, a in chunk.arrays.items() if n == name} if name else possible
    if len(candidates) != 1:
        one = "a single one of floats [rows, d] or [windows, length, d], or its name as `array`"
        expected = f"one called {name!r}" if name else one
        raise BadInput(f"{chunk.file}: arrays {chunk.opened.told}; expected {expected}")
    [(found, a)] = candidates.items()
    if not _is_matrix(a):
        raise BadInput(
            f"{chunk.file}: {a.shape} {a.dtype}; expected floats [rows, d] or [windows, length, d]"
        )
    return found, a


def _is_matrix(a: Array) -> bool:
    return len(a.shape) in (2, 3) and is_float(a.dtype) and 0 not in a.shape


@dataclass(frozen=True)
class _Rows:
    """What becomes of the rows of the arrays, counted one by one ([windows, length, d] as windows
    times length).

    small: n_tokens int32 [N] and, for position `tokens`, the arrays of `token_arrays`; kept: which
    rows become rows of x, None for all; length: rows of a window, 1 where there are none.
    """

    small: dict[str, NDArray[Any]]
    kept: NDArray[np.bool_] | None
    length: int

    def kept_of(self, places: slice) -> NDArray[np.bool_] | None:
        """Which of these rows are kept, None for all."""
        part = None if self.kept is None else np.asarray(self.kept[places])
        return None if part is None or part.all() else part


def _rows(
    t: AssembleTarget, files: Sequence[tuple[str, int]], length: int | None, tokens: Tokens | None
) -> _Rows:
    """files: name and number of rows (or windows) of each; length: tokens per window for arrays
    [windows, length, d], None for arrays [rows, d]."""
    rows = sum(n for _, n in files)
    if t.args.position != "tokens":
        if length is not None:
            raise BadInput(f"{t.name}: three-dimensional arrays hold tokens; set position: tokens")
        lengths = np.full(rows, UNKNOWN) if tokens is None else np.diff(tokens.offsets)
        if len(lengths) != rows:
            raise BadInput(f"{t.name}: {rows} rows, but tokens of {len(lengths)}")
        return _Rows({"n_tokens": lengths.astype(np.int32)}, None, 1)
    if tokens is None:
        if length is None:
            raise BadInput(f"{t.name}: rows are tokens, but `tokens` names no file that cuts them")
        offsets, kept = np.arange(rows + 1, dtype=np.int64) * length, None
    else:
        tokens = tokens.by(length) if length else tokens
        kept = _kept(t, files, length, tokens)
        offsets = tokens.offsets
    small = {"n_tokens": np.diff(offsets).astype(np.int32), **token_arrays(tokens, offsets)}
    return _Rows(small, kept, length or 1)


def _kept(
    t: AssembleTarget, files: Sequence[tuple[str, int]], length: int | None, tokens: Tokens
) -> NDArray[np.bool_] | None:
    """Which rows hold tokens, None for all. Raises BadInput when arrays and tokens do not fit."""
    rows = sum(n for _, n in files)
    ends = np.cumsum([0, *tokens.files])
    if length is not None:
        n, held = [tokens.places], tokens.kept
        if not np.array_equal(np.diff(tokens.places), np.full(rows, length)):
            raise BadInput(
                f"{t.name}: {rows} windows of {length} tokens, but {tokens.places[-1]} tokens in "
                f"{len(tokens.places) - 1} windows of other lengths"
            )
        of_file = np.diff(ends)
    else:
        n = [p for p in (tokens.offsets, tokens.places) if p[-1] == rows]
        if not n:
            padded = "" if tokens.kept is None else f" ({tokens.places[-1]} with padding)"
            raise BadInput(f"{t.name}: {rows} rows, but {tokens.offsets[-1]} tokens{padded}")
        held = None if n[0] is tokens.offsets else tokens.kept
        of_file = np.diff(n[0][ends])
        if not tokens.cut:
            log.warning("%s: its tokens are one row of ids: each file counts as one text", t.name)
    if len(tokens.files) > 1:
        for (file, there), said in zip(files, of_file.tolist(), strict=True):
            if there != said:
                raise BadInput(f"{t.name}: {file} has {there} rows, its tokens {said}")
    return held


@dataclass(frozen=True)
class _Slice:
    """Rows [start, stop) of an array, their places when all are counted one by one, and where in x
    they go."""

    chunk: int
    start: int
    stop: int
    places: slice
    to: tuple[int, int]


def _slices(arrays: Sequence[Array], rows: _Rows) -> Iterator[_Slice]:
    """Slices of about `SLICE` bytes as float32, at least one row."""
    place = at = 0
    for i, a in enumerate(arrays):
        step = max(1, SLICE // (4 * int(np.prod(a.shape[1:]))))
        for start in range(0, a.shape[0], step):
            stop = min(start + step, a.shape[0])
            places = slice(place, place + (stop - start) * rows.length)
            kept = rows.kept_of(places)
            n = places.stop - places.start if kept is None else int(np.count_nonzero(kept))
            yield _Slice(i, start, stop, places, (at, at + n))
            place, at = places.stop, at + n


def _span(slices: Sequence[_Slice], chunk: int) -> list[int]:
    """The rows of x that come from a chunk."""
    own = [s.to for s in slices if s.chunk == chunk]
    return [own[0][0], own[-1][1]]


def _check_texts(t: AssembleTarget, n: int) -> None:
    """When the rows are a dataset of the config, there must be one for each text."""
    if t.args.texts is None:
        return
    header = store.checked(t.args.texts)
    if header["bad"]:
        raise BadInput(header["bad"])
    if header["facts"]["n"] != n:
        raise BadInput(f"{t.name}: {n} rows, but dataset {t.item} has {header['facts']['n']} texts")
