"""Degenerate columns of a representation, found in one pass over its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDEST = 128  # columns per unit up to which they are looked at
CONSTANT, REPEATED = 1, 2


class Flags:
    """Collects rows; `result` says which columns tell nothing of their own.

    Constant: a standard deviation of at most 1e-6 of the largest magnitude. Repeated: a correlation
    above 0.9999 in size with an earlier column of the same unit. Only LoRAs that have the unit
    count. At rank 1, most of `spectral` is one or the other.
    """

    def __init__(self, units: int, width: int):
        self._looked_at = width <= WIDEST
        self._shape = units, width
        if self._looked_at:
            self._n = np.zeros(units)
            self._first = np.zeros((units, width))
            self._largest = np.zeros((units, width))
            self._sum = np.zeros((units, width))
            self._products = np.zeros((units, width, width))

    def add(self, x: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Rows x [n, units, width] with mask [n, units].

        Sums are taken of differences to the first row: those of a constant column are exactly 0.
        """
        if not self._looked_at or not len(x):
            return
        new = (self._n == 0) & mask.any(axis=0)
        self._first[new] = x[mask.argmax(axis=0)[new], new]
        d = np.where(mask[..., None], x - self._first, 0).transpose(1, 0, 2)
        self._n += mask.sum(axis=0)
        self._largest = np.maximum(self._largest, np.abs(x).max(axis=0))
        self._sum += d.sum(axis=1)
        self._products += d.transpose(0, 2, 1) @ d

    def result(self) -> NDArray[np.uint8]:
        """Flags [units · width]; 0 for columns that are fine, and for all of wider units."""
        found = np.zeros(self._shape, np.uint8)
        if self._looked_at:
            n = np.maximum(self._n, 1)[:, None]
            mean = self._sum / n
            covariance = self._products / n[..., None] - mean[:, :, None] * mean[:, None]
            std = np.sqrt(np.maximum(np.einsum("uii->ui", covariance), 0))
            constant = std <= 1e-6 * self._largest
            scale = np.where(constant, np.inf, std)
            correlation = covariance / (scale[:, :, None] * scale[:, None])
            similar = np.triu(np.abs(correlation) > 0.9999, 1).any(axis=1)
            found[constant], found[~constant & similar] = CONSTANT, REPEATED
        return found.ravel()
