"""Singular values and sums of a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import SIGMAS

# Below this share of the largest one a squared singular value is rounding noise of float32 weights.
NOISE = 1e-14


def compute(x: NDArray[np.float32], transposed: bool) -> NDArray[np.float32]:
    """Spectral family of m matrices.

    x: [m, a, b], or the transposes of the matrices when `transposed`. Returns [m, 19]: the largest
    16 singular values (padded with 0), the sum of all, the largest column and row sum of |x|.
    """
    sigma = singular_values(x.astype(np.float64))
    magnitude = np.abs(x)
    column, row = magnitude.sum(1).max(1), magnitude.sum(2).max(1)
    if transposed:
        column, row = row, column
    return np.column_stack([padded(sigma), sigma.sum(1), column, row]).astype(np.float32)


def singular_values(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values [m, min(a, b)] of matrices [m, a, b], descending: roots of Gram eigenvalues.

    A Gram matrix in float64 is as exact as a float32 SVD needs (error of a squared value about
    1e-16 of the largest); what is below `NOISE` of the largest becomes 0.
    """
    if x.shape[1] > x.shape[2]:
        x = x.transpose(0, 2, 1)
    squares: Any = np.linalg.eigvalsh(x @ x.transpose(0, 2, 1))
    return roots(squares)[:, ::-1]


def roots(eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square roots of ascending eigenvalues [m, r]; noise and negative ones become 0."""
    return np.sqrt(np.where(eigenvalues > NOISE * eigenvalues[:, -1:], eigenvalues, 0))


def padded(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first 16 columns, with zeros for those that are not there."""
    out = np.zeros((len(sigma), SIGMAS))
    out[:, : sigma.shape[1]] = sigma[:, :SIGMAS]
    return out
