"""Numbers over classes: y [n] are class numbers, scores [n, classes] (of two classes [n])."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score

from actprobe.probes.kinds import CLASSES, MULTICLASS
from actprobe.probes.metrics import metric


@metric("balanced_acc", kinds=CLASSES, label="balanced accuracy")
def balanced_accuracy(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean over the classes of the share of their rows that is found (recall)."""
    right = predicted == y
    return float(np.mean([right[y == c].mean() for c in np.unique(y)]))


@metric("macro_f1", kinds=CLASSES, label="F1, mean over classes")
def macro_f1(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(f1_score(y, predicted, average="macro", zero_division=0))


@metric("macro_precision", kinds=CLASSES, label="precision, mean over classes")
def macro_precision(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean over the classes of the share of their predictions that is right."""
    return float(precision_score(y, predicted, average="macro", zero_division=0))


@metric("top5", kinds=(MULTICLASS,), label="right class among the five best")
def top_five(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    own = scores[np.arange(len(y)), y]
    return float(np.mean((scores > own[:, None]).sum(axis=1) < 5))
