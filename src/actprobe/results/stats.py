"""The interval of a mean over datasets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

CONFIDENCE = 0.95
FEWEST = 3  # values without which a spread says nothing


def mean_interval(
    values: ArrayLike,
    confidence: float = CONFIDENCE,
    within: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float, float]:
    """Mean of `values` [n] and its interval over units like them, cut to `within`.

    The units are the datasets: the interval says how far the mean would be with other datasets of the
    same kind. Each end is the further one of Student's t and of Hall's t (1992, On the removal of
    skewness by transformation), which allows for a skewed spread such as that of AUCs near 1; the
    two agree where there is none. How often it holds the true mean is measured in
    benchmarks/calibration. NaNs are left out. The bounds are NaN for fewer than three values, and
    where all are equal.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    n = len(x)
    mean = float(x.mean()) if n else math.nan
    error = float(x.std(ddof=1)) / math.sqrt(n) if n >= FEWEST else 0.0
    if not error > 1e-12:
        return mean, math.nan, math.nan
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    skewness = float(np.mean((x - mean) ** 3)) / float(np.mean((x - mean) ** 2)) ** 1.5
    low = mean - error * max(quantile, _untransformed(quantile, skewness, n))
    high = mean + error * max(quantile, -_untransformed(-quantile, skewness, n))
    return mean, max(low, within[0]), min(high, within[1])


def _untransformed(quantile: float, skewness: float, n: int) -> float:
    """The value of Student's statistic that Hall's cubic transformation takes to a quantile."""
    a = skewness / math.sqrt(n)
    if abs(a) < 1e-9:
        return quantile
    return 3 / a * (math.cbrt(1 + a * (quantile - a / 6)) - 1)
