"""Ridge regression on the classes, with every penalty from one decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.keep import Kept, fold
from actprobe.probes.kinds import BINARY
from actprobe.probes.methods import method
from actprobe.probes.methods.grids import values
from actprobe.probes.search import Fitted, Task, answered

_BLOCK = 1 << 22  # numbers of rows that are scored at a time


@dataclass(frozen=True)
class Planes:
    """A distance from a plane for each class: weights [classes, d] and intercepts [classes]."""

    coef_: NDArray[Any]
    intercept_: NDArray[Any]

    def decisions(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """In float64, in which few are equal, a block of rows at a time."""
        most = max(1, _BLOCK // X.shape[1])
        found = [
            X[i : i + most].astype(np.float64) @ self.coef_.T + self.intercept_
            for i in range(0, len(X), most)
        ]
        return np.concatenate(found)


def _kept(fitted: Fitted, task: Task) -> Kept:
    coef, intercept = fitted.model.coef_, fitted.model.intercept_
    if task.kind == BINARY:
        return fold.planes(coef[1] - coef[0], intercept[1] - intercept[0], "logistic")
    return fold.planes(coef, intercept, "none")


@method("ridge_path", own_search=True, keep=_kept)
def ridge_path(task: Task) -> Fitted:
    """Least squares on ±1 targets with a ridge penalty, `alpha` as it is; ties go to the first alpha.

    One eigendecomposition of the smaller Gram matrix serves every alpha: with XXᵀ = VΛVᵀ the
    weights are XᵀV(Λ + α)⁻¹Vᵀ Y (Hoerl and Kennard 1970, in dual form where p > n).
    """
    X, y = task.X_train, task.y_train
    targets = np.where(y[:, None] == np.arange(task.n_classes), 1.0, -1.0)
    intercept = targets.mean(axis=0)
    centre = X.mean(axis=0, dtype=np.float64)
    wide = X - centre.astype(np.float32)
    dual = wide.shape[0] < wide.shape[1]
    gram = (wide @ wide.T if dual else wide.T @ wide).astype(np.float64)
    lam, v = np.linalg.eigh(gram)
    right = v.T @ (targets - intercept if dual else wide.T @ (targets - intercept))
    found: Fitted | None = None
    for alpha in values(task.how["alpha"]):
        solved = v @ (right / (np.maximum(lam, 0) + alpha)[:, None])
        coefficients = (wide.T @ solved if dual else solved).T
        planes = Planes(coefficients, intercept - coefficients @ centre)
        reached = answered(task, planes.decisions, {"alpha": alpha}, planes)
        if found is None or reached.val_score > found.val_score:
            found = reached
    assert found is not None
    return found
