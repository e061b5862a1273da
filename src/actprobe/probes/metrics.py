"""Scores of a probe on its test rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score


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


def evaluate(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """test_auc, test_acc and test_f1 (weighted by class size), plus calibration.

    y: 0/1 labels [n]; scores: probability of class 1 [n]; predicted: labels [n].
    test_brier: mean squared error of the probabilities. test_ece: expected calibration error over
    ten equal bins of the predicted probability (Guo et al. 2017, eq. 3, for class 1).
    """
    bins = np.minimum((scores * 10).astype(int), 9)
    gaps = np.bincount(bins, weights=scores - y, minlength=10)
    return {
        "test_auc": auc(y, scores),
        "test_acc": float(accuracy_score(y, predicted)),
        "test_f1": float(f1_score(y, predicted, average="weighted")),
        "test_brier": float(np.mean((scores - y) ** 2)),
        "test_ece": float(np.abs(gaps).sum() / len(y)),
    }
