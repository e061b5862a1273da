"""Directions that tell two classes apart, by closed forms and a logistic regression, all in float64.

Every one works in the coordinates of the space that the rows span: a direction that a linear
method finds lies in it, so that 400 rows of width 8192 cost as much as rows of width 400.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from actprobe.probes.keep import Kept, fold
from actprobe.probes.methods import method
from actprobe.probes.methods.prepare import fit
from actprobe.probes.methods.span import Span, span
from actprobe.probes.metrics.binary import auc
from actprobe.probes.search import Fitted, Task
from actprobe.probes.validation import Fold

_SAME = 1e-6  # difference of class means, in row norms, that rounding of float32 rows explains

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def find(method: str, z: Matrix, y: NDArray[Any], d: int, C: float) -> tuple[Vector, bool]:
    """The direction [r] of one method on rows z [n, r] of 0/1 labels y, and whether it converged.

    d: the width that the rows had; C: inverse strength of the penalty of `logreg`.
    """
    difference = z[y == 1].mean(axis=0) - z[y == 0].mean(axis=0)
    if method == "mean_difference":
        return difference, True
    if method == "lda":
        return _whitened(z, y, difference, d), True
    return _logreg(z, y, C)


def _whitened(z: Matrix, y: NDArray[Any], difference: Vector, d: int) -> Vector:
    """Σ⁻¹ δ (Fisher 1936) with the pooled within-class covariance Σ, shrunk towards a multiple of
    the identity by the rule of Ledoit and Wolf (2004)."""
    within = z.copy()
    for c in (0, 1):
        within[y == c] -= z[y == c].mean(axis=0)
    shrinkage, mean_variance = ledoit_wolf(within, d)
    covariance = (1 - shrinkage) * (within.T @ within) / len(z)
    covariance[np.diag_indices_from(covariance)] += shrinkage * mean_variance + 1e-300
    return np.asarray(np.linalg.solve(covariance, difference), np.float64)


def ledoit_wolf(centred: Matrix, d: int) -> tuple[float, float]:
    """Shrinkage in [0, 1] and mean variance μ of rows [n, r] that span a space of width d.

    Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
    lemmas 3.2 to 3.5.
    """
    n, r = centred.shape
    gram = centred @ centred.T if n <= r else centred.T @ centred  # of one Frobenius norm
    squared = np.einsum("ij,ij->i", centred, centred)
    mean_variance = float(squared.sum() / n / d)
    of_covariance = float((gram**2).sum()) / n**2  # ‖S‖², its entries squared and summed
    spread = of_covariance / d - mean_variance**2
    error = (float((squared**2).sum()) / n - of_covariance) / n / d
    return (min(error, spread) / spread if spread > 0 else 1.0), mean_variance


def _logreg(z: Matrix, y: NDArray[Any], C: float) -> tuple[Vector, bool]:
    """Weights of an L2-penalised logistic regression on rows of unit mean squared norm."""
    scale = float(np.sqrt((z**2).sum() / len(z))) or 1.0
    model = LogisticRegression(C=C, tol=1e-6, max_iter=1000)
    converged = fit(model, z / scale, y)
    return np.asarray(model.coef_[0], np.float64) / scale, converged


@dataclass(frozen=True)
class Direction:
    """What the training rows say of one direction.

    mean_positive, mean_negative: [d]; vector: [d], which points to class 1; train_score, val_score,
    val_d: AUROC on all training rows, AUROC and d′ on held-out ones; middle, spread: of the scores of
    the training rows, half way between the class means and their standard deviation; space: of the
    rows; C: of the logistic regression.
    """

    mean_positive: Vector
    mean_negative: Vector
    vector: Vector
    train_score: float
    val_score: float
    val_d: float
    converged: bool
    middle: float
    spread: float
    space: Span
    C: float = 1.0

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    @property
    def unit(self) -> Vector:
        """The direction of norm 1, [d]; zero where there is none."""
        return np.asarray(self.vector / (self.norm or 1.0), np.float64)

    def probability(self, scores: Vector) -> Vector:
        """Scores along the unit direction as numbers in (0, 1), 1/2 half way between the classes.

        z / (1 + |z|) of the standardised score z: a logistic function would make 1 of all scores
        beyond 37 standard deviations, as rows of another position can have. It is not calibrated.
        """
        z = (scores - self.middle) / (self.spread or 1.0)
        return np.asarray(0.5 + 0.5 * z / (1 + np.abs(z)), np.float64)


def find_direction(
    method: str, x: Matrix, y: NDArray[Any], folds: Sequence[Fold], C: float = 1.0
) -> Direction:
    """The direction of one method on rows x [n, d] with 0/1 labels y [n].

    It points to class 1: it is turned round when class 1 scores lower on the training rows (AUROC
    below 0.5). Where the class means are equal but for rounding it is zero.
    """
    means = x[y == 1].mean(axis=0), x[y == 0].mean(axis=0)
    space = span(x)
    if np.linalg.norm(means[0] - means[1]) <= _SAME * np.sqrt((x**2).sum() / len(x)):
        zero = np.zeros(x.shape[1])
        return Direction(*means, zero, 0.5, 0.5, 0.0, True, 0.0, 0.0, space, C)
    w, converged = find(method, space.z, y, space.d, C)
    vector = means[0] - means[1] if method == "mean_difference" else space.lift(w)
    train_score = auc(y, x @ vector)
    if train_score < 0.5:
        vector, train_score = -vector, 1 - train_score
    along = x @ (vector / np.linalg.norm(vector))
    middle = float(along[y == 1].mean() + along[y == 0].mean()) / 2
    held_out = _held_out(space, y, method, C, folds)
    spread = float(along.std())
    return Direction(*means, vector, train_score, *held_out, converged, middle, spread, space, C)


def _held_out(
    space: Span, y: NDArray[Any], method: str, C: float, folds: Sequence[Fold]
) -> tuple[float, float]:
    """AUROC and d′ of held-out training rows, means over folds; NaN without folds.

    d′: difference of the class means over the pooled standard deviation. The sign of each fold's
    direction comes from its own training part.
    """
    aucs, ds = [], []
    for fit_rows, held_out in folds:
        w, _ = find(method, space.z[fit_rows], y[fit_rows], space.d, C)
        sign = -1.0 if auc(y[fit_rows], space.z[fit_rows] @ w) < 0.5 else 1.0
        scores, labels = sign * (space.z[held_out] @ w), y[held_out]
        aucs.append(auc(labels, scores))
        ds.append(d_prime(labels, scores))
    return (float(np.mean(aucs)), float(np.mean(ds))) if aucs else (np.nan, np.nan)


def d_prime(y: NDArray[Any], scores: Vector) -> float:
    """Difference of the class means over the pooled standard deviation; 0 without a spread."""
    a, b = scores[y == 1], scores[y == 0]
    spread = float(np.sqrt((a.var() + b.var()) / 2))
    return float(a.mean() - b.mean()) / spread if spread > 0 else 0.0


def _kept(fitted: Fitted, task: Task) -> Kept:
    """Standardised scores along the unit direction, brought into (0, 1)."""
    found: Direction = fitted.model
    spread = found.spread or 1.0
    return fold.planes(found.unit / spread, np.array(-found.middle / spread), "soft_sign")


@method("direction", own_search=True, keep=_kept)
def direction(task: Task) -> Fitted:
    """The method's entry says which one (`along`), and in `solver` the C of a logistic regression.

    Nothing is searched: held-out rows say how good it is, and choose among layers.
    """
    along, C = task.how["along"], float(task.how.get("solver", {}).get("C", 1.0))
    found = find_direction(along, task.X_train, task.y_train, task.folds, C)
    scores = np.asarray(task.X_test, np.float64) @ found.unit
    return Fitted(
        scores=found.probability(scores),
        predicted=(scores > found.middle).astype(np.int64),
        val_score=found.val_score,
        converged=found.converged,
        unconverged=0,
        params={"C": C} if along == "logreg" else {},
        model=found,
        answer=lambda rows: found.probability(np.asarray(rows, np.float64) @ found.unit),
    )
