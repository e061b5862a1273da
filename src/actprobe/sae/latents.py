"""Latents in memory: CSR, read by rows and by columns without densifying the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actprobe.cache import store

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array

BLOCK = 1 << 22  # entries that are worked on at a time, in some 40 bytes each


@dataclass(frozen=True)
class ClassSums:
    """Sums over some rows, per class and per latent that fires in them; enough for any ranking.

    latents: int64 [m], ascending; n: rows per class [C]; total, nonzero: float64 and int64 [C, m],
    sum and number of non-zero activations; magnitude, squares: float64 [m], sums of |activations| and
    of their squares.
    """

    latents: NDArray[np.int64]
    n: NDArray[np.int64]
    total: NDArray[np.float64]
    nonzero: NDArray[np.int64]
    magnitude: NDArray[np.float64]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class Latents:
    """Sparse codes of one SAE on one dataset, rows in dataset order.

    data: float32, indices: int32 (ascending in a row), indptr: int64 [N + 1]; shape (N, F).
    """

    data: NDArray[np.float32]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]
    shape: tuple[int, int]

    @cached_property
    def l0(self) -> NDArray[np.int64]:
        """Non-zeros per row [N]."""
        return np.diff(self.indptr)

    def rows(self, rows: ArrayLike) -> Latents:
        """The given rows (indices or a mask), in that order."""
        chosen = self._rows(rows)
        flat, lengths = self._entries(chosen)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return Latents(self.data[flat], self.indices[flat], indptr, (len(chosen), self.shape[1]))

    def columns(self, latents: ArrayLike, rows: ArrayLike | None = None) -> NDArray[np.float64]:
        """Dense float64 [n rows, k] of the given latents, in the given orders."""
        chosen, wanted = self._rows(rows), np.asarray(latents, np.int64)
        place = np.full(self.shape[1], -1, np.int32)
        place[wanted] = np.arange(len(wanted), dtype=np.int32)
        if len(wanted) != len(np.unique(wanted)):
            raise ValueError("a latent is asked for twice")
        out = np.zeros((len(chosen), len(wanted)))
        for block in self._blocks(chosen):
            flat, lengths = self._entries(chosen[block])
            column = place[self.indices[flat]]
            hit = np.flatnonzero(column >= 0)
            row = np.repeat(np.arange(len(lengths)), lengths)[hit]
            out[block][row, column[hit]] = self.data[flat[hit]]
        return out

    def class_sums(self, rows: ArrayLike | None, y: ArrayLike) -> ClassSums:
        """Sums over `rows` by their classes y (0, 1, … , aligned with rows), in float64."""
        chosen, labels = self._rows(rows), np.asarray(y, np.int64)
        if labels.shape != chosen.shape:
            raise ValueError(f"{len(labels)} labels for {len(chosen)} rows")
        fires = np.zeros(self.shape[1], bool)
        blocks = self._blocks(chosen)
        for block in blocks:
            fires[self.indices[self._entries(chosen[block])[0]]] = True
        live = np.flatnonzero(fires)
        place = np.empty(self.shape[1], np.int32)
        place[live] = np.arange(len(live), dtype=np.int32)
        n = np.bincount(labels)
        shape, cells = (len(n), len(live)), len(n) * len(live)
        total, magnitude, squares = np.zeros(cells), np.zeros(len(live)), np.zeros(len(live))
        nonzero = np.zeros(cells, np.int64)
        for block in blocks:
            flat, lengths = self._entries(chosen[block])
            latent, value = place[self.indices[flat]], self.data[flat].astype(np.float64)
            cell = np.repeat(labels[block] * len(live), lengths) + latent
            total += np.bincount(cell, value, minlength=cells)
            nonzero += np.bincount(cell, minlength=cells)
            magnitude += np.bincount(latent, np.abs(value), minlength=len(live))
            squares += np.bincount(latent, value**2, minlength=len(live))
        total, nonzero = total.reshape(shape), nonzero.reshape(shape)
        return ClassSums(live, n, total, nonzero, magnitude, squares)

    def to_scipy(self) -> csr_array:
        """scipy.sparse CSR array [N, F]; shares memory."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), self.shape)

    def to_torch(self) -> torch.Tensor:
        """torch sparse CSR tensor [N, F]."""
        import torch

        indptr, indices = torch.from_numpy(self.indptr), torch.from_numpy(self.indices)
        values = torch.from_numpy(self.data)
        return torch.sparse_csr_tensor(indptr, indices.long(), values, size=self.shape)

    def _rows(self, rows: ArrayLike | None) -> NDArray[np.int64]:
        if rows is None:
            return np.arange(self.shape[0])
        rows = np.asarray(rows)
        return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)

    def _blocks(self, rows: NDArray[np.int64]) -> list[slice]:
        """The places in `rows` cut so that a block has at most BLOCK entries, or one row."""
        ends = np.cumsum(self.indptr[rows + 1] - self.indptr[rows])
        found, first, before = [], 0, 0
        while first < len(rows):
            stop = max(int(np.searchsorted(ends, before + BLOCK, side="right")), first + 1)
            found.append(slice(first, stop))
            first, before = stop, int(ends[stop - 1])
        return found

    def _entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in `data` of the entries of these rows, and how many each row has."""
        start = self.indptr[rows]
        lengths = self.indptr[rows + 1] - start
        before = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(start - before, lengths), lengths


def open_latents(path: str | Path, key: str | None = None) -> Latents:
    """A latents artefact in memory: 8 bytes per non-zero.

    Raises BadInput with the stored reason when it stands for a dataset that cannot be used.
    """
    with store.open_h5(path, key) as f:
        n, d_sae = f["shape"][:].tolist()
        return Latents(f["data"][:], f["indices"][:], f["indptr"][:], (n, d_sae))
