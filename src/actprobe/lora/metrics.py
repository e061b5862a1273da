"""Scores of a classifier on test rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def evaluate(
    y: NDArray[np.int64], scores: NDArray[Any], n_classes: int
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Accuracy, macro F1, precision and recall (0 where undefined), one-vs-rest AUC, interval.

    y: [n]; scores: [n, classes]. ci_low and ci_high: 95 % interval of the accuracy (Wilson 1927).
    Also returns the confusion matrix [true class, predicted class].
    """
    predicted = scores.argmax(axis=1)
    labels = np.arange(n_classes)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y, predicted, labels=labels, average="macro", zero_division=0
    )
    hit = float((predicted == y).mean())
    low, high = wilson(hit, len(y))
    values = {
        "test_acc": hit,
        "test_auc": auc(y, scores),
        "test_f1": float(f1),
        "test_precision": float(precision),
        "test_recall": float(recall),
        "ci_low": low,
        "ci_high": high,
    }
    return values, confusion_matrix(y, predicted, labels=labels)


def auc(y: NDArray[np.int64], scores: NDArray[Any]) -> float:
    """Mean over the classes of the AUC of that class's score against all others; NaN without."""
    present = [c for c in np.unique(y) if 0 < (y == c).sum() < len(y)]
    values = [roc_auc_score(y == c, scores[:, c]) for c in present]
    return float(np.mean(values)) if values else math.nan


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % score interval of a share of n (Wilson 1927); exactly 0 and 1 where the share is."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return centre - half if share > 0 else 0.0, centre + half if share < 1 else 1.0
