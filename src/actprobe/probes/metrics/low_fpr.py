"""Numbers of probes of two classes where few false alarms are allowed: y is 0/1 [n], scores [n].

False-positive rate (FPR): the share of class 0 above a threshold; true-positive rate (TPR): that of
class 1. Every number is NaN where a class has no rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.alarms import tpr_at_fpr
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics import metric

Numbers = NDArray[Any]
_MISSED, _ALARMED = 5.0, 50.0  # weights of a missed row and of a false alarm


def _both(y: Numbers) -> bool:
    return bool(0 < np.sum(y) < len(y))


@metric("tpr_at_1pct", kinds=(BINARY,), label="TPR at 1 % FPR")
def tpr_at_one_percent(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    """Without interpolation. The threshold is the test rows' own: better than one chosen before."""
    return tpr_at_fpr(y, scores, 0.01)


@metric("tpr_at_01pct", kinds=(BINARY,), label="TPR at 0.1 % FPR")
def tpr_at_one_in_a_thousand(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    """As at 1 %; with fewer than 1,000 rows of class 0 none of them may be above the threshold."""
    return tpr_at_fpr(y, scores, 0.001)


def partial_auc(y: Numbers, scores: Numbers, highest: float) -> float:
    """Area under the ROC curve up to an FPR of `highest`, scaled so that chance is 0.5 and the best 1
    (McClish 1989, Analyzing a portion of the ROC curve); less than 0.5 is possible."""
    if not _both(y):
        return math.nan
    false, true = (np.append(0.0, c / c[-1]) for c in _alarms(y, scores))
    end = int(np.searchsorted(false, highest, "right"))
    if end < len(false):  # the curve is a line between its corners
        last = np.interp(highest, false[end - 1 : end + 1], true[end - 1 : end + 1])
        false, true = np.append(false[:end], highest), np.append(true[:end], last)
    chance = highest**2 / 2
    return float((1 + (np.trapezoid(true, false) - chance) / (highest - chance)) / 2)


def _alarms(y: Numbers, scores: Numbers) -> tuple[Numbers, Numbers]:
    """Rows of class 0, and of class 1, at or above each score that occurs, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    true = np.cumsum(y[order], dtype=np.float64)[last_of_ties]
    return 1.0 + last_of_ties - true, true


@metric("pauc_10pct", kinds=(BINARY,), label="partial AUC up to 10 % FPR")
def partial_auc_to_a_tenth(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    return partial_auc(y, scores, 0.1)


@metric("average_precision", kinds=(BINARY,), label="average precision")
def average_precision(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    """At the prevalence of the test rows."""
    return precision_at(y, scores)


def precision_at(y: Numbers, scores: Numbers, prevalence: float | None = None) -> float:
    """Average precision where class 1 has this share of all rows; None: that of y.

    The sum of precision times the gain of recall over the thresholds, without interpolation. Rows are
    weighted, so that TPR and FPR stay what they are and precision is that at `prevalence`.
    """
    if not _both(y):
        return math.nan
    false, true = _alarms(y, scores)
    share = true[-1] / len(y) if prevalence is None else prevalence
    found = true / true[-1]
    right = share * found
    precision = right / (right + (1 - share) * false / false[-1])
    return float(np.sum(np.diff(found, prepend=0.0) * precision))


@metric("weighted_error", kinds=(BINARY,), label="error, false alarms ten times", higher=False)
def weighted_error(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    """(5 · FNR + 50 · FPR) / 55 of the predicted classes; FNR = 1 - TPR."""
    if not _both(y):
        return math.nan
    missed, alarmed = np.mean(predicted[y == 1] == 0), np.mean(predicted[y == 0] == 1)
    return float((_MISSED * missed + _ALARMED * alarmed) / (_MISSED + _ALARMED))


@metric("log_auc", kinds=(BINARY,), label="AUC over log FPR from 0.1 %")
def log_auc_from_one_in_a_thousand(y: Numbers, scores: Numbers, predicted: Numbers) -> float:
    return log_auc(y, scores, 0.001)


def log_auc(y: Numbers, scores: Numbers, lowest: float) -> float:
    """Mean TPR over the logarithm of the FPR from `lowest` to 1: of the step function `tpr_at_fpr`.

    The best is 1; chance is (1 - lowest) / ln(1 / lowest), with many rows.
    """
    if not _both(y):
        return math.nan
    negative, positive = np.sort(scores[y == 0])[::-1], np.sort(scores[y == 1])
    n = len(negative)
    # From an FPR of k/n up to (k + 1)/n the threshold is the (k + 1)-th largest score of class 0.
    edge = np.clip(np.append(np.arange(n) / n, 1.0), lowest, 1.0)
    tpr = 1 - np.searchsorted(positive, negative, "right") / len(positive)
    return float(np.sum(tpr * np.diff(np.log(edge))) / -math.log(lowest))
