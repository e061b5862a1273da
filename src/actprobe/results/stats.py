"""Bootstrap intervals over datasets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE, DRAWS, SEED = 0.95, 10_000, 42


@lru_cache(maxsize=4)
def _weights(n: int, draws: int, seed: int) -> np.ndarray:
    """Weights [draws, n] of a bootstrap sample of n units: how often each is drawn, over n."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return counts / n


def bootstrap_mean(
    values: ArrayLike, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float, float]:
    """Mean of `values` [n] and its percentile bootstrap interval (Efron & Tibshirani 1993, 13.3).

    The units are the datasets: the interval says how far the mean would move with other datasets
    of the same kind. NaNs are left out; with fewer than two values the bounds are NaN. The sums
    avoid BLAS, so that the result does not depend on the number of threads.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return (float(x.mean()) if len(x) else np.nan), np.nan, np.nan
    means = (_weights(len(x), draws, seed) * x).sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(x.mean()), float(low), float(high)
