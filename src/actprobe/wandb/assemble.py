"""Assembly: the verified chunks of a dump, streamed into ordinary activation and latent artefacts.

Memory holds one slice of a few megabytes, whatever the size of the dump. An interrupted assembly
goes on at the slice where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from actprobe import store
from actprobe.errors import BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, Target
from actprobe.wandb import windows
from actprobe.wandb.arrays import Array
from actprobe.wandb.chunks import (
    SLICE,
    UNKNOWN,
    Chunk,
    as_float32,
    check_finite,
    open_chunks,
    open_token_file,
    token_arrays,
    write,
)
from actprobe.wandb.tokens import Tokens

log = logging.getLogger(__name__)


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Assemble the targets of a batch one after the other; the disk is the limit, not threads."""
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out, ExitStack() as stack:
        opened: dict[str, Tokens] = {}  # the sites of a dump share their tokens
        for t in batch.targets:
            with out.guard(t):
                tokens = None
                if t.args["tokens"]:
                    file = t.args["tokens"]["path"]
                    if file not in opened:
                        opened[file] = stack.enter_context(open_token_file(t))
                    tokens = opened[file]
                make = windows.assemble if t.args["content"] == "latents" else assemble
                with open_chunks(t.args["chunks"]) as chunks:
                    out.done(t, make(t, chunks, tokens))
                log.info("%s: assembled from %d files", t.name, len(t.args["chunks"]))


def assemble(t: Target, chunks: Sequence[Chunk], tokens: Tokens | None) -> Path:
    """Write the activation artefact of a target from matrices [rows, d] or [windows, length, d].

    x keeps float16 and bfloat16 as they are; everything else becomes float32. Returns the sealed
    part. Raises BadInput naming the file when dtype or shape differ between chunks, a value is not
    finite, or the rows do not fit the tokens or the texts.
    """
    found = [_matrix(c, t.spec["array"]) for c in chunks]
    first = found[0]
    for c, a in zip(chunks, found, strict=True):
        if a.dtype != first.dtype or a.shape[1:] != first.shape[1:]:
            raise BadInput(
                f"{t.name}: {c.file} holds {a.shape} {a.dtype}, {chunks[0].file} {first.shape} "
                f"{first.dtype}; expected one dtype and equal shapes but for the rows"
            )
    length = first.shape[1] if len(first.shape) == 3 else 1  # rows of x for a row of the array
    rows, d = [a.shape[0] for a in found], first.shape[-1]
    ends = np.cumsum(rows) * length
    small = _small_arrays(t, sum(rows), length if len(first.shape) == 3 else None, tokens)
    _check_texts(t, len(small["n_tokens"]))
    dtype = {"bfloat16": "u2", "float16": "f2"}.get(first.dtype, "f4")
    shapes = {name: (a.shape, a.dtype) for name, a in small.items()}
    shapes["x"] = ((int(ends[-1]), d), np.dtype(dtype))
    facts = {
        "dump": t.loader,
        "chunks": [
            {"file": c.file, "digest": c.digest, "rows": [int(e - r * length), int(e)]}
            for c, r, e in zip(chunks, rows, ends, strict=True)
        ],
    }
    slices = list(_slices(found))
    attrs = {"x": {"dtype": "bfloat16"}} if first.dtype == "bfloat16" else None
    with store.Part(t.path, t.spec, shapes, len(slices) + 1, facts, attrs) as part:
        for unit in part.pending:
            if unit == len(slices):
                for name, values in small.items():
                    write(part, name, values)
            else:
                i, start, stop = slices[unit]
                block = found[i].rows(start, stop).reshape(-1, d)
                values = as_float32(block, first.dtype)
                check_finite(values, chunks[i].file, start * length)
                at = int(ends[i]) + (start - rows[i]) * length
                part["x"][at : at + len(block)] = values if dtype == "f4" else block
            part.mark(unit)
        return part.finish()


def _matrix(chunk: Chunk, name: str | None) -> Array:
    candidates = {k: a for k, a in chunk.arrays.items() if name is None or k == name}
    if len(candidates) != 1:
        raise BadInput(
            f"{chunk.file}: arrays {', '.join(map(repr, chunk.arrays)) or 'none'}; expected "
            + (f"one called {name!r}" if name else "a single one, or its name as `array`")
        )
    a = next(iter(candidates.values()))
    if len(a.shape) not in (2, 3) or "float" not in a.dtype or 0 in a.shape:
        raise BadInput(
            f"{chunk.file}: {a.shape} {a.dtype}; expected floats [rows, d] or [windows, length, d]"
        )
    return a


def _small_arrays(
    t: Target, rows: int, length: int | None, tokens: Tokens | None
) -> dict[str, np.ndarray]:
    """n_tokens int32 [N] and, for position `tokens`, the arrays of `token_arrays`.

    length: tokens per window for arrays [windows, length, d], None for arrays [rows, d].
    """
    if t.args["position"] != "tokens":
        if length is not None:
            raise BadInput(f"{t.name}: three-dimensional arrays hold tokens; set position: tokens")
        lengths = np.full(rows, UNKNOWN) if tokens is None else np.diff(tokens.offsets)
        if len(lengths) != rows:
            raise BadInput(f"{t.name}: {rows} rows, but tokens of {len(lengths)}")
        return {"n_tokens": lengths.astype(np.int32)}
    if tokens is None:
        if length is None:
            raise BadInput(f"{t.name}: rows are tokens, but `tokens` names no file that cuts them")
        offsets = np.arange(rows + 1, dtype=np.int64) * length
    else:
        offsets = tokens.offsets
        if length is None and offsets[-1] != rows:
            raise BadInput(f"{t.name}: {rows} rows, but {offsets[-1]} tokens")
        if length is not None and not np.array_equal(np.diff(offsets), np.full(rows, length)):
            raise BadInput(
                f"{t.name}: {rows} windows of {length} tokens, but {offsets[-1]} tokens in "
                f"{len(offsets) - 1} windows of other lengths"
            )
    return {"n_tokens": np.diff(offsets).astype(np.int32), **token_arrays(tokens, offsets)}


def _check_texts(t: Target, n: int) -> None:
    """When the rows are a dataset of the config, there must be one for each text."""
    if t.args["texts"] is None:
        return
    header = store.checked(t.args["texts"])
    if header["bad"]:
        raise BadInput(header["bad"])
    if header["facts"]["n"] != n:
        raise BadInput(f"{t.name}: {n} rows, but dataset {t.item} has {header['facts']['n']} texts")


def _slices(arrays: Sequence[Array]) -> Iterator[tuple[int, int, int]]:
    """(array, start, stop) of slices of about `SLICE` bytes as float32, at least one row."""
    for i, a in enumerate(arrays):
        step = max(1, SLICE // (4 * int(np.prod(a.shape[1:]))))
        for start in range(0, a.shape[0], step):
            yield i, start, min(start + step, a.shape[0])
