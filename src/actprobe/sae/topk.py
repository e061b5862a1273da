"""The k largest entries of each row, kept while blocks of latents pass by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Best:
    """The k entries of largest |value| seen so far in each of n rows; ties to the lower latent.

    values: float32 [n, k], 0 where fewer were seen; latents: int32 [n, k], ascending in a row.
    """

    def __init__(self, n: int, k: int):
        self.values = np.zeros((n, k), np.float32)
        self.latents = np.zeros((n, k), np.int32)

    @property
    def floor(self) -> NDArray[np.float32]:
        """Float32 [n]: an entry has to be larger to get in."""
        floor: NDArray[np.float32] = np.abs(self.values).min(axis=1)
        return floor

    def add(self, row: NDArray[Any], latent: NDArray[Any], value: NDArray[np.float32]) -> None:
        """Let entries compete: ordered by row, then latent, and beyond all latents seen so far."""
        counts = np.bincount(row, minlength=len(self.values))
        rows = np.flatnonzero(counts)
        if not len(rows):
            return
        k, width = self.values.shape[1], int(counts.max())
        start = np.cumsum(counts) - counts
        place = k + np.arange(len(row)) - start[row]
        line = (np.cumsum(counts > 0) - 1)[row]
        values = np.zeros((len(rows), k + width), np.float32)
        latents = np.zeros((len(rows), k + width), np.int32)
        values[:, :k], latents[:, :k] = self.values[rows], self.latents[rows]
        values[line, place], latents[line, place] = value, latent
        pick = largest(np.abs(values), k)
        self.values[rows] = values[pick].reshape(-1, k)
        self.latents[rows] = latents[pick].reshape(-1, k)


def largest(size: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Mask of exactly k largest entries per row; among equals the first."""
    kth = np.partition(size, size.shape[1] - k, axis=1)[:, -k, None]
    above, equal = size > kth, size == kth
    free = k - above.sum(axis=1, keepdims=True)
    mask: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= free))
    return mask
