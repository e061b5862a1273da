"""Singular values and sums of a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import SIGMAS

# Below this share of the largest one a squared singular value is rounding noise of the computation.
NOISE = 1e-14


def compute(
    x: NDArray[np.float32], transposed: bool, rounding: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Spectral family of m matrices.

    x: [m, a, b], or the transposes of the matrices when `transposed`; rounding: `Rounding` of each,
    [m, 2]. Returns [m, 19]: the largest 16 singular values (padded with 0; those that may be rounding
    alone are 0), the sum of all, the largest column and row sum of |x|.
    """
    sigma = singular_values(x.astype(np.float64), rounding)
    magnitude = np.abs(x)
    column, row = magnitude.sum(1).max(1), magnitude.sum(2).max(1)
    if transposed:
        column, row = row, column
    return np.column_stack([padded(sigma), sigma.sum(1), column, row]).astype(np.float32)


def singular_values(x: NDArray[np.float64], rounding: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values [m, min(a, b)] of matrices [m, a, b], descending: roots of Gram eigenvalues.

    A Gram matrix in float64 is as exact as a float32 SVD needs (error of a squared value about
    1e-16 of the largest). What rounding may have made becomes 0: errors of at most unit · |x| per
    entry that are independent have a norm of about their largest row norm and their largest column
    norm together (Bandeira and van Handel 2016).
    """
    if x.shape[1] > x.shape[2]:
        x = x.transpose(0, 2, 1)
    gram: Any = x @ x.transpose(0, 2, 1)
    unit, least = rounding.T
    rows, columns = np.einsum("mii->mi", gram).max(1), np.einsum("mrn,mrn->mn", x, x).max(1)
    noise = unit * (
        np.sqrt(rows + x.shape[2] * least**2) + np.sqrt(columns + x.shape[1] * least**2)
    )
    return roots(np.linalg.eigvalsh(gram), noise)[:, ::-1]


def roots(
    eigenvalues: NDArray[np.float64], noise: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Square roots of ascending eigenvalues [m, r]; negative ones and those that are noise become 0.

    noise: size [m] of a root that may be rounding of the input.
    """
    least = np.maximum(NOISE * eigenvalues[:, -1], np.square(noise))
    return np.sqrt(np.where(eigenvalues > least[:, None], eigenvalues, 0))


def padded(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first 16 columns, with zeros for those that are not there."""
    out = np.zeros((len(sigma), SIGMAS))
    out[:, : sigma.shape[1]] = sigma[:, :SIGMAS]
    return out
