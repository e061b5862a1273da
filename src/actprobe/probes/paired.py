"""Two probes on the same test rows: the difference of their AUCs, of what they find at one
false-positive rate, and of what fixed thresholds flag.

Rows that belong together (a text's author, a pair, a conversation) are one observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from actprobe.probes.intervals import LEVEL, mean_and_variance, placements

DRAWS = 1000

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The first probe minus the second, its interval, and the two-sided p value that there is none."""

    value: float
    low: float
    high: float
    p: float


NONE = Difference(math.nan, math.nan, math.nan, math.nan)


def delong(
    y: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    cluster: NDArray[Any] | None = None,
    level: float = LEVEL,
) -> Difference:
    """Difference of two AUCs on the same rows: 0/1 labels y [n], scores first and second [n].

    The variance is that of the differences of the placements (DeLong, DeLong and Clarke-Pearson 1988),
    summed by cluster [n] where rows belong together (Obuchowski 1997). NaN unless each class has rows of
    two clusters; without p and with an interval of no width where both order all rows alike.
    """
    cluster = np.arange(len(y)) if cluster is None else cluster
    if min(len(np.unique(cluster[y == c])) for c in (0, 1)) < 2:
        return NONE
    value, variance = mean_and_variance(y, placements(y, first) - placements(y, second), cluster)
    if not variance > 1e-18:
        return Difference(value, value, value, math.nan)
    error = math.sqrt(variance)
    half = error * float(ndtri((1 + level) / 2))
    p = 2 * float(ndtr(-abs(value) / error))
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Rows that only the first flags, those that only the second flags, and the exact two-sided p.

    For thresholds that other rows chose. 2 P(Bin(b + c, ½) ≤ min(b, c)), at most 1 (McNemar 1947, in the
    exact form): whether the two flag equally many rows of one class.
    """
    b, c = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0


@dataclass(frozen=True)
class Draws:
    """Rows drawn with replacement: how often each is there, float32 [draws, n], of labels y [n]."""

    y: NDArray[Any]
    counts: NDArray[np.float32]
    of_class: tuple[Vector, Vector]  # rows of class 0 and of class 1 in each draw


def resampled(
    y: NDArray[Any], cluster: NDArray[Any] | None = None, draws: int = DRAWS, seed: int = 0
) -> Draws:
    """Draws of whole clusters from 0/1 labels y [n], for all probes on these rows.

    Stratified: clusters with rows of class 0 alone, of class 1 alone and of both are drawn from among
    their like, so every draw has both classes.
    """
    cluster = np.arange(len(y)) if cluster is None else cluster
    _, at = np.unique(cluster, return_inverse=True)
    has = [np.bincount(at, weights=y == c) > 0 for c in (0, 1)]
    stratum = has[0] + 2 * has[1]
    rng = np.random.default_rng(seed)
    drawn = np.zeros((draws, len(stratum)), np.float32)
    for s in np.unique(stratum):
        of = np.flatnonzero(stratum == s)
        drawn[:, of] = rng.multinomial(len(of), np.full(len(of), 1 / len(of)), size=draws)
    counts = drawn[:, at]
    totals = [counts[:, y == c].sum(axis=1, dtype=np.float64) for c in (0, 1)]
    return Draws(y, counts, (totals[0], totals[1]))


def found_at(draws: Draws, scores: NDArray[Any], rate: float) -> Vector:
    """`alarms.tpr_at_fpr` of every draw, float64 [draws]; each has a threshold of its own."""
    order = np.argsort(-scores, kind="stable")
    negative, positive = draws.of_class
    allowed = np.floor(rate * negative + 1e-9)
    # A low rate is decided among the highest scores; where they do not decide it in every draw, all do.
    enough = np.searchsorted(np.cumsum(draws.y[order] == 0), 4 * allowed.max() + 30) + 1
    for first in (enough, len(order)):
        top = order[:first]
        ends = np.append(np.flatnonzero(np.diff(scores[top])), len(top) - 1)  # of equal scores
        if first < len(order):
            ends = ends[:-1]  # the last score may go on behind the end
        class_1, drawn = draws.y[top] == 1, draws.counts[:, top]
        false = np.cumsum(np.where(class_1, 0, drawn), axis=1)[:, ends]
        true = np.cumsum(np.where(class_1, drawn, 0), axis=1)[:, ends]
        if first >= len(order) or (len(ends) and np.all(false[:, -1] > allowed)):
            break
    levels = np.sum(false <= allowed[:, None], axis=1)  # flagged from the top
    of = np.take_along_axis(true, np.maximum(levels - 1, 0)[:, None], axis=1)[:, 0]
    share: Vector = np.where(levels > 0, of, 0.0) / positive
    return share


def bootstrapped(value: float, first: Vector, second: Vector, level: float = LEVEL) -> Difference:
    """`value` with the percentile interval of the draws' differences, and their p.

    first, second [draws]: of the same draws. p: twice the smaller share of draws on either side of 0,
    those at 0 on both, at least 2 / (draws + 1) (Davison and Hinkley 1997, Bootstrap methods, section
    4.2). NaN where all draws are equal.
    """
    gap = first - second
    if not np.ptp(gap) > 0:
        return Difference(value, math.nan, math.nan, math.nan)
    low, high = np.quantile(gap, [(1 - level) / 2, (1 + level) / 2])
    side = 1 + min(int(np.sum(gap <= 0)), int(np.sum(gap >= 0)))
    return Difference(value, float(low), float(high), min(1.0, 2 * side / (len(gap) + 1)))
