"""What few rows say of false alarms: a threshold for a stated false-positive rate, and what it holds.

A row gives an alarm where its score is strictly larger than the threshold. False-positive rate: the
share of class 0 that does so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

LEVEL = 0.95
_WITHIN_TWO = 10  # expected false alarms from which a rate is known within a factor of about two


@dataclass(frozen=True)
class Share:
    """k of n rows, and the exact interval of the share that they are drawn from."""

    k: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else math.nan


def share(k: int, n: int, level: float = LEVEL) -> Share:
    """k of n rows with the interval of Clopper and Pearson (1934).

    For a threshold that other rows chose. At least `level` of such intervals hold the true share. NaN
    for both ends where n is 0.
    """
    if n == 0:
        return Share(0, 0, math.nan, math.nan)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
    return Share(k, n, low, high)


def true_rate(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Between which rates the true false-positive rate of a threshold lies that k of the n rows of
    class 0 exceed which chose it.

    For continuous scores it is distributed as Beta(k + 1, n - k), whatever the scores are: the coverage
    of an order statistic (Wilks 1941, Determination of sample sizes for setting tolerance limits).
    (0, 1) where no row chose.
    """
    if n == 0 or k >= n:
        return 0.0, 1.0
    tail = (1 - level) / 2
    return float(beta.ppf(tail, k + 1, n - k)), float(beta.ppf(1 - tail, k + 1, n - k))


def least_negatives(rate: float, level: float = LEVEL) -> int:
    """Rows of class 0 from which a threshold that none of them exceeds has a true rate of at most `rate`
    with this certainty: the least n with (1 - rate)^n <= 1 - level."""
    return math.ceil(math.log(1 - level) / math.log(1 - rate))


def negatives_for_a_factor_of_two(rate: float) -> int:
    """Rows of class 0 from which a threshold's rate is known within a factor of about two."""
    return math.ceil(_WITHIN_TWO / rate)


def tpr_at_fpr(y: NDArray[Any], scores: NDArray[np.float64], rate: float) -> float:
    """The largest share of class 1 above a threshold that at most ⌊rate · n⌋ rows of class 0 exceed.

    y: 0/1 labels [n], scores [n]. The step function: no interpolation between thresholds that exist, and
    equal scores stay together. NaN where a class has no rows.
    """
    negative, positive = np.sort(scores[y == 0]), scores[y == 1]
    if not len(negative) or not len(positive):
        return math.nan
    allowed = math.floor(rate * len(negative) + 1e-9)
    if allowed >= len(negative):
        return 1.0
    return float(np.mean(positive > negative[len(negative) - 1 - allowed]))


def conformal(negatives: NDArray[np.float64], rate: float) -> float:
    """The threshold that a new row of class 0 exceeds with probability of at most `rate`: the
    ⌈(1 - rate)(n + 1)⌉-th smallest of n scores; infinite where n is too small for that.

    Split conformal prediction (Vovk, Gammerman and Shafer 2005, section 2.2); on average over the rows
    that choose, and only where new rows are exchangeable with them.
    """
    n = len(negatives)
    rank = math.ceil((1 - rate) * (n + 1) - 1e-9)
    return math.inf if rank > n else float(np.sort(negatives)[rank - 1])
