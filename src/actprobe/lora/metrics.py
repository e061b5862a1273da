"""Scores of a classifier on test rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from actprobe.lora.inference import wilson


def evaluate(
    y: NDArray[np.int64], scores: NDArray[Any], n_classes: int
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Accuracy, macro F1, precision and recall (0 where undefined), one-vs-rest AUC, interval.

    y: [n]; scores: [n, classes]. ci_low and ci_high: 95 % interval of the accuracy (Wilson 1927).
    Also returns the cells of the confusion matrix that are not 0, [cells, 3]: true class, predicted
    class, rows. There are no more of them than rows, however many classes there are.
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
    return values, confusion(y, predicted)


def confusion(y: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells of a confusion matrix that are not 0, [cells, 3]: true class, predicted class, rows."""
    pairs, counts = np.unique(np.column_stack([y, predicted]), axis=0, return_counts=True)
    return np.column_stack([pairs, counts]).astype(np.int64)


def auc(y: NDArray[np.int64], scores: NDArray[Any]) -> float:
    """Mean over the classes of the AUC of that class's score against all others; NaN without."""
    present = [c for c in np.unique(y) if 0 < (y == c).sum() < len(y)]
    values = [roc_auc_score(y == c, scores[:, c]) for c in present]
    return float(np.mean(values)) if values else math.nan
