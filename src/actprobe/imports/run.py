"""The imports stage: activations of other tools, checked and copied into ordinary artefacts.

Files are opened by their headers alone; shapes and places are checked before anything is allocated,
and nothing in a file is run. Memory holds one slice of a few megabytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import texts
from actprobe.base import keys
from actprobe.base.errors import BadInput
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.files import UNKNOWN, Array, as_float32, check_finite, is_float, open_arrays
from actprobe.imports import caches
from actprobe.imports.layouts import INFO, read_object
from actprobe.imports.targets import ImportTarget, identity
from actprobe.texts import Texts

log = logging.getLogger(__name__)

_SLICE = 1 << 24  # bytes in memory
_STORED = {"bfloat16": "u2", "float16": "f2"}  # everything else becomes float32


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the targets of a batch one after the other; the disk is the limit, not threads."""
    memo = DigestMemo(config["cache_dir"])
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        out.make(batch.targets, partial(_make, memo=memo))


def _make(t: ImportTarget, memo: DigestMemo) -> Path:
    folder, files = Path(t.args.folder), t.args.files
    rows = texts.load(t.args.texts)
    if not files:
        raise BadInput(f"imports.{t.loader}: no activations of {t.item} at {t.args.site} there")
    found = identity(folder, files, t.spec.layout, memo)
    keys.require_unchanged(found, t.spec.content, str(folder))
    if t.spec.layout in ("v1", "v2"):
        caches.check(folder, t.args.pairs, rows, t.args.texts)
    make = _examples if t.spec.layout == "v2" else _stacks
    part = make(t, [folder / f for f in files], rows)
    log.info("%s: imported from %s", t.name, folder)
    return part


@contextmanager
def _opened(path: Path, name: str | None) -> Iterator[tuple[Array, Mapping[str, Array]]]:
    """The array of floats in a file, and all its arrays."""
    with open_arrays(path) as found:
        wanted = name or ("x" if "x" in found.arrays else None)
        arrays = [a for n, a in found.arrays.items() if wanted in (None, n)]
        if wanted is None and len(arrays) > 1:  # beside masks and ids
            arrays = [a for a in arrays if is_float(a.dtype) and len(a.shape) > 1] or arrays
        if len(arrays) != 1:
            expected = f"one called {wanted!r}" if wanted else "one array, or its name as `array`"
            raise BadInput(f"{path}: arrays {found.told}; expected {expected}")
        if not is_float(arrays[0].dtype) or 0 in arrays[0].shape:
            raise BadInput(f"{path}: {arrays[0].shape} {arrays[0].dtype}; expected floats")
        yield arrays[0], found.arrays


@dataclass(frozen=True)
class _Stack:
    """One file of [n, d] or [n, 1, d] rows, and the rows of the dataset that they are."""

    path: Path
    shape: tuple[int, int]
    dtype: str
    rows: NDArray[np.int64] | None  # None: all of them in order


def _stacks(t: ImportTarget, paths: list[Path], rows: Texts) -> Path:
    """Copy whole matrices: one file, or for pairs those of the positive and the negative rows."""
    order = caches.positive_first(rows) if t.args.pairs else (None,)
    small: dict[str, NDArray[Any]] = {"n_tokens": np.full(len(rows), UNKNOWN, np.int32)}
    stacks = []
    for path, at in zip(paths, order, strict=True):
        with _opened(path, t.spec.array) as (a, arrays):
            if len(a.shape) not in (2, 3) or (len(a.shape) == 3 and a.shape[1] != 1):
                raise BadInput(f"{path}: shape {a.shape}; expected [rows, d] or [rows, 1, d]")
            stacks.append(_Stack(path, (a.shape[0], a.shape[-1]), a.dtype, at))
            if t.args.position == "tokens":
                small = _cuts(path, arrays, len(rows), a.shape[0])
            elif "n_tokens" in arrays:
                small["n_tokens"] = _column(path, arrays, "n_tokens", len(rows)).astype(np.int32)
        n = len(at) if at is not None else a.shape[0] if "offsets" in small else len(rows)
        if a.shape[0] != n:
            raise BadInput(f"{path}: {a.shape[0]} rows, but dataset {t.item} has {n}")
        if (a.dtype, a.shape[-1]) != (stacks[0].dtype, stacks[0].shape[1]):
            raise BadInput(
                f"{path}: width {a.shape[-1]} {a.dtype}, {stacks[0].path} has "
                f"{stacks[0].shape[1]} {stacks[0].dtype}; expected one width and dtype"
            )
    dtype, d = stacks[0].dtype, stacks[0].shape[1]
    _check_info(t, d)
    step = max(1, _SLICE // (4 * d))
    units = [(s, i, min(i + step, s.shape[0])) for s in stacks for i in range(0, s.shape[0], step)]
    with _part(t, dtype, (sum(s.shape[0] for s in stacks), d), small, len(units)) as part:
        for u in part.pending:
            s, start, stop = units[u]
            with _opened(s.path, t.spec.array) as (a, _):
                block = a.rows(start, stop).reshape(stop - start, d)
            to = slice(start, stop) if s.rows is None else s.rows[start:stop]
            part["x"][to] = _checked(block, dtype, s.path, start)
            part.mark(u)
        return part.finish()


def _column(path: Path, arrays: Mapping[str, Array], name: str, n: int) -> NDArray[Any]:
    if name not in arrays or arrays[name].shape != (n,):
        found = arrays[name].shape if name in arrays else "none"
        raise BadInput(f"{path}: array {name!r}: {found}, expected {n} values")
    return arrays[name].rows(0, n)


def _cuts(path: Path, arrays: Mapping[str, Array], n: int, tokens: int) -> dict[str, NDArray[Any]]:
    """The arrays that cut tokens into rows: n_tokens [n], offsets [n + 1], token_ids [tokens]."""
    offsets = _column(path, arrays, "offsets", n + 1).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) <= 0).any():
        raise BadInput(f"{path}: offsets do not cut {tokens} tokens into {n} rows")
    n_tokens = np.diff(offsets)
    if "n_tokens" in arrays:
        n_tokens = _column(path, arrays, "n_tokens", n)
    ids = np.full(tokens, UNKNOWN)
    if "token_ids" in arrays:
        ids = _column(path, arrays, "token_ids", tokens)
    return {
        "n_tokens": n_tokens.astype(np.int32),
        "offsets": offsets,
        "token_ids": ids.astype(np.int32),
    }


def _check_info(t: ImportTarget, d: int) -> None:
    """The width that layer_info.json tells, where it does."""
    if t.spec.layout not in ("v1", "v2"):
        return
    info = Path(t.args.folder) / INFO
    content = read_object(info)
    samples = content.get("sample_shapes")
    shapes = [content.get("activation_shape"), *(samples if isinstance(samples, list) else [])]
    for shape in shapes:
        if isinstance(shape, list) and shape and shape[-1] != d:
            raise BadInput(f"{info}: activations of width {shape[-1]}, the files have {d}")


def _examples(t: ImportTarget, paths: list[Path], rows: Texts) -> Path:
    """Join one file [1, T, d] or [T, d] per example, or take one vector of each."""
    order = np.arange(len(rows))
    if t.args.pairs:
        order = np.concatenate(caches.positive_first(rows))
    if len(paths) != len(order):
        raise BadInput(f"{t.name}: {len(paths)} files, but dataset {t.item} has {len(order)} rows")
    of_row = [paths[i] for i in np.argsort(order)]
    lengths, dtype, d = _measure(of_row, t.spec.array)
    _check_info(t, d)
    position = t.args.position
    reduce = {"last": lambda x: x[-1:], "mean": lambda x: x.mean(axis=0, keepdims=True)}.get(
        position
    )
    if reduce is None and position != "tokens":
        raise BadInput(f"{t.name}: position {position}; expected tokens, last or mean")
    kept = np.ones(len(rows), np.int64) if reduce else lengths
    ends = np.cumsum(kept)
    small: dict[str, NDArray[Any]] = {"n_tokens": lengths.astype(np.int32)}
    if reduce is None:
        small["offsets"] = np.concatenate([[0], ends])
        small["token_ids"] = np.full(ends[-1], UNKNOWN, np.int32)
    stored = "float32" if position == "mean" else dtype
    units = [range(i, min(i + 64, len(rows))) for i in range(0, len(rows), 64)]
    with _part(t, stored, (int(ends[-1]), d), small, len(units)) as part:
        for u in part.pending:
            for i in units[u]:
                with _opened(of_row[i], t.spec.array) as (a, _):
                    block = a.rows(0, a.shape[0]).reshape(-1, d)
                block = _checked(block, dtype, of_row[i], 0)
                if position == "mean":
                    block = as_float32(block, dtype).astype(np.float64)
                part["x"][ends[i] - kept[i] : ends[i]] = reduce(block) if reduce else block
            part.mark(u)
        return part.finish()


def _measure(paths: list[Path], name: str | None) -> tuple[NDArray[np.int64], str, int]:
    """Tokens of each example, and the dtype and width that all share."""
    lengths: list[int] = []
    kinds: dict[tuple[str, int], Path] = {}
    for path in paths:
        with _opened(path, name) as (a, _):
            if len(a.shape) not in (2, 3) or (len(a.shape) == 3 and a.shape[0] != 1):
                raise BadInput(f"{path}: shape {a.shape}; expected [1, tokens, d] or [tokens, d]")
            lengths.append(a.shape[-2])
            kinds.setdefault((a.dtype, a.shape[-1]), path)
    if len(kinds) > 1:
        (one, first), (two, second) = list(kinds.items())[:2]
        raise BadInput(f"{second}: width and dtype {two[::-1]}, {first} has {one[::-1]}")
    [(dtype, d)] = kinds
    return np.array(lengths), dtype, d


def _checked(block: NDArray[Any], dtype: str, path: Path, first: int) -> NDArray[Any]:
    """The block as it is stored; BadInput naming file and row when a value is not finite."""
    values = as_float32(block, dtype)
    check_finite(values, str(path), first)
    return block if dtype in _STORED else values


def _part(
    t: ImportTarget,
    dtype: str,
    shape: tuple[int, int],
    small: Mapping[str, NDArray[Any]],
    units: int,
) -> store.Part:
    """The part of an artefact with all but x written to it."""
    shapes: dict[str, Any] = {name: (a.shape, a.dtype) for name, a in small.items()}
    shapes["x"] = (shape, _STORED.get(dtype, "f4"))
    unknown = dict.fromkeys(("revision", "tokenizer", "template"), "unknown")
    facts = {"provenance": "imported", "import": t.loader, "layout": t.spec.layout, **unknown}
    stored = dtype if dtype in _STORED else "float32"
    part = store.Part(t.path, t.record, shapes, units, facts, {"x": {"dtype": stored}})
    if part.pending:
        for name, values in small.items():
            part[name][:] = values
    return part
