"""Numbers of probes of a continuous label: y [n] are its values, scores [n] the predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from actprobe.probes.kinds import CONTINUOUS
from actprobe.probes.metrics import metric


@metric("r2", kinds=(CONTINUOUS,), label="R²", low=-math.inf)
def r2(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Share of the variance of y that the predictions explain; 0 for predicting the mean of y, and
    less for worse. NaN for equal values."""
    spread = float(np.sum((y - y.mean()) ** 2))
    return 1 - float(np.sum((y - scores) ** 2)) / spread if spread > 0 else math.nan


@metric("spearman", kinds=(CONTINUOUS,), label="rank correlation", low=-1.0)
def spearman(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Correlation of the ranks, ties as their mean rank (Spearman 1904). NaN where one is constant."""
    a, b = rankdata(y), rankdata(scores)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


@metric("rmse", kinds=(CONTINUOUS,), label="root mean squared error", high=math.inf, higher=False)
def rmse(y: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> float:
    """In the label's own unit."""
    return math.sqrt(float(np.mean((y - scores) ** 2)))
