"""What a number is compared with: null directions, text alone, length, the first token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
BAND = (0.025, 0.975)  # quantiles of a null band


def random_directions(d: int, k: int, seed: int) -> Matrix:
    """Unit directions [k, d], uniform on the sphere."""
    found = np.random.default_rng([seed, 0]).standard_normal((k, d))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def band(null: NDArray[np.float64]) -> tuple[float, float]:
    """What a value that is exchangeable with the null values [k] leaves in 5 % of cases: the
    quantiles at rank (k + 1)·q (Weibull's), so that the found one is counted among them."""
    low, high = np.quantile(null, BAND, method="weibull")
    return float(low), float(high)


def p_value(null: NDArray[np.float64], found: float) -> float:
    """Share of null values that are at least as high, the found one counted among them
    (Phipson and Smyth 2010)."""
    return float((1 + np.sum(null >= found)) / (1 + len(null)))


def length_correlation(scores: NDArray[np.float64], length: NDArray) -> float:
    """Pearson correlation of scores [n] with 1/length [n]; NaN where either is constant.

    A token whose score does not depend on the text shifts a row's mean score by a constant over
    the row's length, so that the score tells the length.
    """
    inverse = 1 / length
    if np.ptp(scores) == 0 or np.ptp(inverse) == 0:
        return np.nan
    return float(np.corrcoef(scores, inverse)[0, 1])


def without(unit: Matrix, other: NDArray[np.float64]) -> Matrix:
    """Unit directions [m, d] with their component along the unit direction `other` [d] taken out.

    One that is parallel to it becomes zero.
    """
    left = unit - np.outer(unit @ other, other)
    norm = np.linalg.norm(left, axis=1, keepdims=True)
    return np.where(norm > 1e-8, left / np.maximum(norm, 1e-300), 0.0)
