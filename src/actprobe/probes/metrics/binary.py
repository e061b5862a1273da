"""Numbers of probes of two classes: y is 0/1 [n], scores [n] the probability of class 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from actprobe.probes.kinds import BINARY, CLASSES
from actprobe.probes.metrics import metric

_RANKED = 1 << 21  # scores that are ranked at a time


def auc(y: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve of 0/1 labels [n] and scores [n]; NaN when one class is missing.

    The sum of trapezoids between the corners of the curve, operation by operation as in
    scikit-learn's roc_auc_score, without its checks, which take longer than a small probe: the
    rounding error decides which of two hyperparameters with one AUC has the larger one.
    """
    if not 0 < np.sum(y) < len(y):
        return math.nan
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    true_positives = np.cumsum(y[order], dtype=np.float64)[last_of_ties]
    false_positives = 1.0 + last_of_ties - true_positives
    bends = (np.diff(false_positives, 2) != 0) | (np.diff(true_positives, 2) != 0)
    corner = np.concatenate([[True], bends, [True]]) if len(last_of_ties) > 2 else slice(None)
    height, width = (np.append(0.0, c[corner]) / c[-1] for c in (true_positives, false_positives))
    return float(np.trapezoid(height, width))


def aucs(y: NDArray[Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC [k] of many scores [k, n] of the same rows with 0/1 labels y [n], from mean ranks."""
    from scipy.stats import rankdata

    positive = int(np.sum(y == 1))
    most = max(1, _RANKED // max(len(y), 1))
    ranks = np.concatenate(
        [
            rankdata(scores[first : first + most], axis=1)[:, y == 1].sum(axis=1)
            for first in range(0, len(scores), most)
        ]
        or [np.zeros(0)]
    )
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(y) - positive))


def either(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any] | None = None) -> float:
    """`auc` of two classes; of several the mean over the classes that both have rows and lack some.

    Macro average, each class against the rest (Fawcett 2006, An introduction to ROC analysis,
    section 9, without weights).
    """
    if scores.ndim == 1:
        return auc(y, scores)
    each = [auc((y == c).astype(int), scores[:, c]) for c in range(scores.shape[1])]
    known = [value for value in each if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


metric("auc", kinds=CLASSES, label="test AUC")(either)


@metric("acc", kinds=CLASSES, label="accuracy")
def accuracy(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(accuracy_score(y, predicted))


@metric("f1", kinds=CLASSES, label="F1, classes weighted by their rows")
def f1(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(f1_score(y, predicted, average="weighted"))


@metric("brier", kinds=(BINARY,), label="Brier score", higher=False)
def brier(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean squared error of the probabilities (Brier 1950)."""
    return float(np.mean((scores - y) ** 2))


@metric("ece", kinds=(BINARY,), label="expected calibration error", higher=False)
def calibration_error(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Over ten equal bins of the predicted probability (Guo et al. 2017, eq. 3, for class 1)."""
    bins = np.minimum((scores * 10).astype(int), 9)
    gaps = np.bincount(bins, weights=scores - y, minlength=10)
    return float(np.abs(gaps).sum() / len(y))
