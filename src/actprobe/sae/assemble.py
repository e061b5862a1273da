"""From encoded tiles to the latents artefact: CSR, compact on disk, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actprobe.cache import store
from actprobe.cache.store.files import out_of_space
from actprobe.sae.encode import best_so_far
from actprobe.sae.pieces import ROWS, Pieces, place, tile_width

_CHUNK = 1 << 17  # entries of a compressed chunk
_ENTRIES = 1 << 22  # entries put in order at a time


@dataclass(frozen=True)
class Window:
    """Consecutive rows in CSR: lengths [n], and their entries row by row, latents ascending."""

    first: int
    lengths: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.float32]


def windows(
    pieces: Pieces, n: int, d_sae: int, k: int | None, scale: NDArray[np.float32] | None
) -> Iterator[Window]:
    """The n rows of a dataset in order, a bounded number of entries at a time.

    k: of a top k; scale: [F], multiplies the values.
    """
    for index in range(-(-n // ROWS)):
        first = index * ROWS
        rows = min(ROWS, n - first)
        for w in _best(pieces, index, rows, d_sae, k) if k else _all(pieces, index, rows, d_sae):
            values = w.values if scale is None else w.values * scale[w.latents]
            yield Window(first + w.first, w.lengths, w.latents, values)


def _best(pieces: Pieces, index: int, rows: int, d_sae: int, k: int) -> Iterator[Window]:
    best = best_so_far(pieces, index, rows, k, d_sae)
    kept = best.values != 0
    yield Window(0, kept.sum(axis=1), best.latents[kept], best.values[kept])


def _all(pieces: Pieces, index: int, rows: int, d_sae: int) -> Iterator[Window]:
    """Entries come by column tile and leave by row; a tile far from sparse is cut into strips."""
    strips = max(1, -(-pieces.entries(index) // _ENTRIES))
    step = -(-rows // strips)
    for low in range(0, rows, step):
        high = min(low + step, rows)
        found = []
        for column, (flat, value) in enumerate(pieces.tiles(index)):
            ends = np.array([low, high]) * tile_width(column, d_sae)
            a, b = np.searchsorted(flat, ends)
            found.append((*place(flat[a:b], column, d_sae), value[a:b]))
        row, latent, value = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(row, kind="stable")  # column tiles ascend, so latents stay ascending
        lengths = np.bincount(row - low, minlength=high - low)
        yield Window(low, lengths, latent[order], value[order])


def write(
    path: str | Path,
    spec: Mapping[str, Any],
    facts: Mapping[str, Any],
    lengths: NDArray[np.int64],
    d_sae: int,
    found: Iterator[Window],
    offsets: NDArray[np.int64] | None = None,
) -> Path:
    """Write the sealed part of a latents artefact; `found` yields all rows in order.

    lengths: non-zeros per row [n]. Arrays: `data` float32, `indices` int32 (ascending in a row),
    `indptr` int64 [n + 1], `shape` int64 [2], `l0` int32 [n]; where rows are tokens also `offsets`
    int64 [N + 1]: text i has rows offsets[i] to offsets[i + 1].
    """
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    with (
        store.whole(path) as (new, part),  # whose place the log of encoded tiles has held
        out_of_space(path, 8 * int(indptr[-1])),
        h5py.File(new, "w", locking=False) as f,
    ):
        f["header"] = np.bytes_(store.make_header(spec, facts))
        f["shape"] = np.array([len(lengths), d_sae])
        _compressed(f, "indptr", indptr.shape, "i8")[...] = indptr
        _compressed(f, "l0", lengths.shape, "i4")[...] = lengths
        if offsets is not None:
            f["offsets"] = offsets
        data = _compressed(f, "data", (indptr[-1],), "f4")
        indices = _compressed(f, "indices", (indptr[-1],), "i4")
        at = 0
        for values, latents in _in_chunks(found):
            data[at : at + len(values)] = values
            indices[at : at + len(values)] = latents
            at += len(values)
    return part


def _compressed(f: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    chunks = (min(_CHUNK, shape[0]),) if shape[0] else None
    packed = {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    return f.create_dataset(name, shape, dtype, **(packed if chunks else {}))


def _in_chunks(found: Iterator[Window]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Values and latents in pieces of exactly one chunk, so that each is compressed once."""
    values, latents = [np.empty(0, np.float32)], [np.empty(0, np.int32)]
    n = 0
    for w in found:
        values.append(w.values)
        latents.append(w.latents)
        n += len(w.values)
        if n >= _CHUNK:
            v, j = np.concatenate(values), np.concatenate(latents)
            whole = n // _CHUNK * _CHUNK
            for a in range(0, whole, _CHUNK):
                yield v[a : a + _CHUNK], j[a : a + _CHUNK]
            values, latents, n = [v[whole:]], [j[whole:]], n - whole
    yield np.concatenate(values), np.concatenate(latents)
