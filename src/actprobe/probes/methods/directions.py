"""Directions in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.methods import How, Params, Shape, method


class MeanDifference:
    """The line from the mean of class 0 to that of class 1; the threshold is half way.

    Marks and Tegmark 2023 (arXiv 2310.06824), section 5, without the covariance.
    """

    def fit(self, X: NDArray[Any], y: NDArray[Any]) -> MeanDifference:
        means = [X[y == c].mean(axis=0) for c in (0, 1)]
        self.coef_ = (means[1] - means[0])[None]
        self.intercept_ = -self.coef_ @ (means[0] + means[1]) / 2
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, X: NDArray[Any]) -> NDArray[Any]:
        return X @ self.coef_[0] + self.intercept_[0]

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        return (self.decision_function(X) > 0).astype(np.int64)


def _nothing(how: How, shape: Shape, seed: int) -> list[Params]:
    return [{}]


@method("mean_difference", grid=_nothing)
def mean_difference(how: How, params: Params, seed: int) -> MeanDifference:
    return MeanDifference()
