"""Confidence intervals of the numbers of a fit over its test rows.

That of the AUC of two classes is in closed form: no resampling, memory for a few vectors.

The variance of an AUC follows from its placements: the share of the other class that each row
beats (DeLong, DeLong and Clarke-Pearson 1988). Rows that belong together are one observation
(Obuchowski 1997). The interval is the score interval of a proportion (Wilson 1927) with as many
trials as give this variance, and with Student's t in place of the normal quantile. Where few
rows are out of order, the placements know little of their variance, and nothing where none is: the
number of trials is drawn towards that of two classes that do not overlap, or stays if it is smaller.
So the interval keeps its level where classes are small or the AUC is near 1, lies in [0, 1] and never
has width 0. How often it holds the true AUC is measured in benchmarks/calibration.
"""

from __future__ import annotations

import math
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from actprobe.probes import metrics
from actprobe.probes.kinds import BINARY, MULTICLASS

LEVEL = 0.95
_TRUSTED = 20  # rows of each class out of order, from which their variance counts for half

_PARTS = 20  # of the jackknife

Vector = NDArray[np.float64]


def main_interval(
    kind: str,
    y: NDArray[Any],
    scores: NDArray[Any],
    cluster: NDArray[Any],
    level: float,
    name: str | None = None,
    predicted: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """The interval of a fit's main metric, for any label kind; name: of that which is selected.

    That of an accuracy is the score interval of as many rows, whatever belongs together.
    """
    if name == "acc":
        assert predicted is not None
        return wilson(float(np.mean(predicted == y)), len(y), level) if len(y) else (nan, nan)
    if kind == BINARY and name in (None, "auc"):
        return auc_interval(y, scores, cluster, level)
    if kind == MULTICLASS and name in (None, "auc"):
        return _of_classes(y, scores, cluster, level)
    return jackknife(kind, y, scores, cluster, level, name, predicted)


def wilson(share: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a share of n (Wilson 1927); exactly 0 and 1 where the share is."""
    return _wilson(share, n, float(ndtri(0.5 + level / 2)))


def _of_classes(
    y: NDArray[Any], scores: NDArray[Any], cluster: NDArray[Any], level: float
) -> tuple[float, float]:
    """Means of the ends of each class's interval against the rest: as if all erred together, so
    rather too wide than too narrow. Classes without one (a single row) are left out."""
    each = [
        auc_interval((y == c).astype(int), scores[:, c], cluster, level)
        for c in range(scores.shape[1])
        if 0 < np.sum(y == c) < len(y)
    ]
    known = [ends for ends in each if not math.isnan(ends[0])]
    if not known:
        return math.nan, math.nan
    return float(np.mean([e[0] for e in known])), float(np.mean([e[1] for e in known]))


def jackknife(
    kind: str,
    y: NDArray[Any],
    scores: NDArray[Any],
    cluster: NDArray[Any],
    level: float,
    name: str | None = None,
    predicted: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """The interval of a main metric by leaving out one of twenty parts of the test rows at a time.

    Whole clusters [n] are dealt to the parts, by their names and not by chance. Student's t with one
    degree less than there are parts (Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3), cut
    to the metric's range. NaN for fewer than three parts, and where no part changes anything.
    """
    _, at = np.unique(cluster, return_inverse=True)
    parts = min(_PARTS, int(at.max(initial=-1)) + 1)
    predicted = y if predicted is None else predicted
    whole = metrics.main(kind, y, scores, name, predicted)
    if parts < 3 or math.isnan(whole):
        return math.nan, math.nan
    part = np.random.RandomState(0).permutation(at.max() + 1)[at] % parts
    kept = [part != i for i in range(parts)]
    left = np.array([metrics.main(kind, y[k], scores[k], name, predicted[k]) for k in kept])
    error = math.sqrt((parts - 1) / parts * float(np.sum((left - left.mean()) ** 2)))
    if not error > 0:
        return math.nan, math.nan
    half = error * float(stdtrit(parts - 1, (1 + level) / 2))
    of = metrics.main_metric(kind, name)
    return max(whole - half, of.low), min(whole + half, of.high)


def placements(y: NDArray[Any], scores: NDArray[Any]) -> Vector:
    """For each row the share of the other class's rows that it beats, ties as halves, float64 [n].

    y: 0/1 labels [n], both present. A row of class 1 beats lower scores, one of class 0 higher
    ones: the mean over the rows of either class is the AUC.
    """
    found = np.empty(len(y))
    for c in (0, 1):
        own, others = y == c, np.sort(scores[y != c])
        below = np.searchsorted(others, scores[own], "left")
        below += np.searchsorted(others, scores[own], "right")
        share = below / (2 * len(others))
        found[own] = share if c == 1 else 1 - share
    return found


def auc_interval(
    y: NDArray[Any],
    scores: NDArray[Any],
    cluster: NDArray[Any] | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Lower and upper end of the interval of the AUC of 0/1 labels y [n] and scores [n].

    cluster: names [n] of what belongs together (a text, an author, a pair); None where every row
    stands for itself. NaN for both ends unless each class has rows of two clusters.
    """
    if cluster is None:
        cluster = np.arange(len(y))
    of = [np.unique(cluster[y == c], return_inverse=True)[1] for c in (0, 1)]
    sizes = [int(c.max(initial=-1)) + 1 for c in of]
    if min(sizes) < 2:
        return math.nan, math.nan
    share = placements(y, scores)
    auc = float(share[y == 1].mean())
    parts = [_variance_of_mean(share[y == c] - auc, of[c]) for c in (0, 1)]
    variance = sum(parts) + _covariance(y, share - auc, cluster)
    in_order = share == (1.0 if auc >= 0.5 else 0.0)
    told = min(len(np.unique(of[c][~in_order[y == c]])) for c in (0, 1))
    trials = _trials(auc, variance, told, sizes)
    return _wilson(auc, trials, _quantile(parts, sizes, level))


def mean_and_variance(y: NDArray[Any], share: Vector, cluster: NDArray[Any]) -> tuple[float, float]:
    """The AUC of `placements` [n], or a difference of AUCs of their differences, and its variance.

    cluster: names [n] of what belongs together; each class has rows of two.
    """
    mean = float(share[y == 1].mean())
    variance = _covariance(y, share - mean, cluster)
    for c in (0, 1):
        at = np.unique(cluster[y == c], return_inverse=True)[1]
        variance += _variance_of_mean(share[y == c] - mean, at)
    return mean, variance


def _trials(auc: float, variance: float, told: int, sizes: list[int]) -> float:
    """Trials of a proportion as good as the rows; told: clusters of the rarer class out of order.

    Of classes that do not overlap: those of the variance of Hanley and McNeil (1982) for an AUC near
    1, where the placements show none.
    """
    m, n = sizes
    separated = m * n / (1 + ((m + n) / 2 - 1) / 2)
    if not 0 < auc < 1 or variance <= 0:
        return separated
    own, weight = auc * (1 - auc) / variance, told / (told + _TRUSTED)
    return min(own, own**weight * separated ** (1 - weight))


def _variance_of_mean(deviation: Vector, cluster: NDArray[Any]) -> float:
    """Variance of the mean of one class's deviations [m] whose clusters are numbered from 0."""
    sums = np.bincount(cluster, weights=deviation)
    n = len(sums)
    return float(sums @ sums) * n / (n - 1) / len(deviation) ** 2


def _covariance(y: NDArray[Any], deviation: Vector, cluster: NDArray[Any]) -> float:
    """What clusters with rows of both classes add to the variance of the AUC; 0 without them."""
    _, at = np.unique(cluster, return_inverse=True)
    sums = [np.bincount(at, weights=np.where(y == c, deviation, 0.0)) for c in (0, 1)]
    n = len(sums[0])
    return 2 * float(sums[0] @ sums[1]) * n / (n - 1) / int(np.sum(y == 0)) / int(np.sum(y == 1))


def _quantile(parts: list[float], sizes: list[int], level: float) -> float:
    """Student's t quantile with the degrees of freedom of Welch and Satterthwaite."""
    total = sum(parts)
    if total > 0:
        freedom = total**2 / sum(p**2 / (n - 1) for p, n in zip(parts, sizes, strict=True))
    else:
        freedom = min(sizes) - 1
    return float(stdtrit(freedom, (1 + level) / 2))


def _wilson(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """The score interval of a share of so many trials; exactly 0 and 1 where the share is."""
    z2 = quantile**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)
