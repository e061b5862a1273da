"""What a number is compared with: null directions, text alone, length, the first token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
BAND = (0.025, 0.975)  # quantiles of a null band
CONFIDENCE = 0.95


def random_directions(d: int, k: int, seed: int) -> Matrix:
    """Unit directions [k, d], uniform on the sphere."""
    found = np.random.default_rng([seed, 0]).standard_normal((k, d))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def permuted_directions(x: Matrix, y: NDArray, pair: NDArray | None, k: int, seed: int) -> Matrix:
    """Unit mean differences [k, d] of rows x [n, d] whose labels were permuted at random.

    Within pairs (names or None, [n]) that have one row of each class the two labels are swapped or
    not, which is what such data allow to be exchanged; otherwise all labels are permuted.
    """
    rng = np.random.default_rng([seed, 1])
    if pair is not None and _one_of_each(y, pair):
        _, at = np.unique(pair, return_inverse=True)
        swapped = rng.integers(0, 2, (k, at.max() + 1))[:, at] == 1
        labels = np.where(swapped, 1 - y, y)
    else:
        labels = rng.permuted(np.tile(y, (k, 1)), axis=1)
    positive = labels.sum(axis=1, keepdims=True)
    weights = np.where(labels == 1, 1 / positive, -1 / (len(y) - positive))
    found = weights @ x
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)


def _one_of_each(y: NDArray, pair: NDArray) -> bool:
    if any(p is None for p in pair):
        return False
    _, at = np.unique(pair.astype(str), return_inverse=True)
    return bool((np.bincount(at) == 2).all() and (np.bincount(at, weights=y) == 1).all())


def aucs(y: NDArray, scores: Matrix) -> NDArray[np.float64]:
    """AUROC [k] of many scores [k, n] of the same rows with 0/1 labels y [n], from mean ranks."""
    from scipy.stats import rankdata

    positive = int(np.sum(y == 1))
    ranks = rankdata(scores, axis=1)[:, y == 1].sum(axis=1)
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(y) - positive))


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
