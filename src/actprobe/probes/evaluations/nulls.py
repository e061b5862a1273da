"""What a score would be by chance: the main metric under exchanged labels of the tried rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from actprobe.probes import metrics
from actprobe.probes.controls.bands import BAND, band
from actprobe.probes.kinds import BINARY
from actprobe.probes.permute import arrangements, exchanged

DRAWS = 199
FEWEST = 40  # orders of the labels from which 2.5 % of them are one
_NORMAL = 10  # rows of each class from which an AUC of single rows is normal under exchange

Vector = NDArray[np.float64]


def null_band(
    kind: str, y: NDArray[Any], scores: Vector, cluster: NDArray[Any], select: str | None = None
) -> tuple[float, float]:
    """The ends of the band that holds 95 % of the main metric where labels y [n] say nothing of scores
    [n] or [n, classes]; NaN where there are too few orders of the labels to tell.

    The AUC of two classes of single rows has mean ½ and the variance of the Mann-Whitney statistic with
    ties (Lehmann 1975, Nonparametrics, section 1.2 and appendix). Otherwise labels are exchanged DRAWS
    times, groups [n] as wholes (`permute.exchanged`).
    """
    single = len(np.unique(cluster)) == len(y)
    if kind == BINARY and select in (None, "auc"):
        fewest = int(min(np.sum(y == 1), np.sum(y == 0)))
        if not fewest:
            return math.nan, math.nan
        if single and fewest >= _NORMAL:
            half = float(ndtri(BAND[1])) * math.sqrt(_variance(y, scores))
            return max(0.0, 0.5 - half), min(1.0, 0.5 + half)
    if kind == BINARY and arrangements(y, cluster) < FEWEST:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = (exchanged(y, cluster, rng) for _ in range(DRAWS))
    if kind == BINARY and select in (None, "auc"):
        found = _aucs(np.stack(list(drawn)), scores)
    else:
        found = np.array([metrics.main(kind, labels, scores, select) for labels in drawn])
    known = found[np.isfinite(found)]
    return band(known) if len(known) >= FEWEST else (math.nan, math.nan)


def _variance(y: NDArray[Any], scores: Vector) -> float:
    n, positive = len(y), int(np.sum(y == 1))
    ties = np.unique(scores, return_counts=True)[1].astype(np.float64)
    tied = float(np.sum(ties**3 - ties)) / (n * (n - 1))
    return (n + 1 - tied) / (12 * positive * (n - positive))


def _aucs(labels: NDArray[Any], scores: Vector) -> Vector:
    """AUCs [k] of labels [k, n] with the same scores [n]."""
    positive = labels.sum(axis=1)
    ranks = labels @ rankdata(scores)
    return (ranks - positive * (positive + 1) / 2) / (positive * (labels.shape[1] - positive))
