"""Order statistics, moments and histogram entropy of the entries of a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import BINS, QUANTILES

EPS = 1e-8


def compute(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Order family of m tensors of n entries each.

    x: [m, n]. Returns [m, 19], columns as in the catalog. One sort serves quantiles, medians,
    extremes and the histogram; moments are taken in float64. std has ddof 1; skew and kurt are the
    means of z³ and z⁴ with z = (x - mean) / (std + 1e-8); the entropy is that of 50 equal bins
    between min and max, -Σ p·ln(p + 1e-8).
    """
    n = x.shape[1]
    s = np.sort(x, axis=1)
    d = s.astype(np.float64)
    entropy = _entropy(d)
    mean = d.mean(axis=1)
    d -= mean[:, None]
    m2 = np.vecdot(d, d)
    scratch = d * d
    m3 = np.vecdot(scratch, d) / n
    m4 = np.vecdot(scratch, scratch) / n
    std = np.sqrt(m2 / (n - 1)) if n > 1 else np.zeros_like(mean)
    z = std + EPS
    return np.column_stack(
        [
            quantiles(s, QUANTILES),
            s[:, (n - 1) // 2],
            s[:, 0],
            s[:, -1],
            mean,
            std,
            m3 / z**3,
            m4 / z**4,
            np.abs(d, out=scratch).mean(axis=1),
            entropy,
            np.sqrt(m2 + n * mean**2),
        ]
    ).astype(np.float32)


def quantiles(ascending: NDArray[np.float32], levels: tuple[float, ...]) -> NDArray[np.float64]:
    """Quantiles [m, len(levels)] of sorted rows [m, n], linearly interpolated."""
    at = np.asarray(levels) * (ascending.shape[1] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, ascending.shape[1] - 1)
    below, above = (ascending[:, i].astype(np.float64) for i in (low, high))
    found: NDArray[np.float64] = below + (at - low) * (above - below)
    return found


def _entropy(ascending: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy [m] of the histograms of sorted rows [m, n], all counted at once."""
    m, n = ascending.shape
    low = ascending[:, :1]
    span = ascending[:, -1:] - low
    placed = ascending - low
    placed *= BINS
    placed /= np.where(span > 0, span, 1)  # in this order a value on an edge stays on it
    np.minimum(placed, BINS - 1, out=placed)  # the last bin holds the largest value
    bins = placed.astype(np.int8)
    first = np.ones((m, n), bool)  # values of one bin stand together: counts are lengths of runs
    np.not_equal(bins[:, 1:], bins[:, :-1], out=first[:, 1:])
    starts = np.flatnonzero(first)
    p = np.diff(starts, append=m * n) / (n + EPS)
    entropy: NDArray[Any] = -np.bincount(starts // n, p * np.log(p + EPS), m)
    return entropy
