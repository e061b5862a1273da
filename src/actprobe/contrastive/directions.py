"""Directions that tell two classes of activations apart, all in float64.

Every method works in the coordinates of the space that the rows span: a direction that a linear
method finds lies in it, so that 400 rows of width 8192 cost as much as rows of width 400.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprobe.probes import auc

_SAME = 1e-6  # difference of class means, in row norms, that rounding of float32 rows explains

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Rows in the space that they span.

    z: their centred coordinates [n, r]; axes: orthonormal columns [d, r], None where r = d is the
    space itself.
    """

    z: Matrix
    axes: Matrix | None
    d: int

    def lift(self, w: Matrix) -> Matrix:
        """Directions [..., r] in these coordinates as directions [..., d]."""
        return w if self.axes is None else w @ self.axes.T


def span(x: Matrix) -> Span:
    """The space of the rows x [n, d], from the eigenvectors of their centred Gram matrix.

    An L2-penalised linear model with a free intercept has its optimum there (Hastie, Tibshirani,
    Friedman, The Elements of Statistical Learning, section 18.3.5).
    """
    n, d = x.shape
    centred = x - x.mean(axis=0)
    if n > d:
        return Span(centred, None, d)
    size, vectors = np.linalg.eigh(centred @ centred.T)
    kept = size > 1e-12 * max(size[-1], 1e-300)
    length, vectors = np.sqrt(size[kept]), vectors[:, kept]
    return Span(vectors * length, centred.T @ (vectors / length), d)


def find(method: str, z: Matrix, y: NDArray, d: int, C: float) -> tuple[Vector, bool]:
    """The direction [r] of one method on rows z [n, r] of 0/1 labels y, and whether it converged.

    d: the width that the rows had; C: inverse strength of the penalty of `logreg`.
    """
    difference = z[y == 1].mean(axis=0) - z[y == 0].mean(axis=0)
    if method == "mean_difference":
        return difference, True
    if method == "lda":
        return _whitened(z, y, difference, d), True
    return _logreg(z, y, C)


def _whitened(z: Matrix, y: NDArray, difference: Vector, d: int) -> Vector:
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


def _logreg(z: Matrix, y: NDArray, C: float) -> tuple[Vector, bool]:
    """Weights of an L2-penalised logistic regression on rows of unit mean squared norm."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scale = float(np.sqrt((z**2).sum() / len(z))) or 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=C, tol=1e-6, max_iter=1000).fit(z / scale, y)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return np.asarray(model.coef_[0], np.float64) / scale, converged


@dataclass(frozen=True)
class Fitted:
    """What the training rows say, methods in the given order.

    mean_positive, mean_negative: [d]; direction, unit: [m, d]; norm: [m] of the directions;
    train_auc, val_auc, val_d: [m], on all training rows and on held-out ones; converged: [m].
    """

    mean_positive: Vector
    mean_negative: Vector
    direction: Matrix
    norm: Vector
    train_auc: Vector
    val_auc: Vector
    val_d: Vector
    converged: list[bool]

    @property
    def unit(self) -> Matrix:
        """Directions of norm 1, [m, d]; zero where there is none."""
        return self.direction / np.where(self.norm > 0, self.norm, 1.0)[:, None]


def fit(
    x: Matrix,
    y: NDArray,
    groups: NDArray,
    methods: Sequence[str],
    C: float,
    folds: int,
    seed: int,
    space: Span | None = None,
) -> Fitted:
    """Directions of all methods on rows x [n, d] with 0/1 labels y [n]; space: `span(x)`.

    A direction points to class 1: it is turned round when class 1 scores lower on the training
    rows (AUROC below 0.5). groups [n]: rows of one group are held out together. Where the class
    means are equal but for rounding, every direction is zero.
    """
    means = x[y == 1].mean(axis=0), x[y == 0].mean(axis=0)
    if np.linalg.norm(means[0] - means[1]) <= _SAME * np.sqrt((x**2).sum() / len(x)):
        nothing, half = np.zeros(len(methods)), np.full(len(methods), 0.5)
        zero = np.zeros((len(methods), x.shape[1]))
        converged = [True] * len(methods)
        return Fitted(means[0], means[1], zero, nothing, half, half, nothing, converged)
    space = span(x) if space is None else space
    found = [find(m, space.z, y, space.d, C) for m in methods]
    direction = space.lift(np.stack([w for w, _ in found]))
    if "mean_difference" in methods:
        direction[methods.index("mean_difference")] = means[0] - means[1]
    train_auc = np.array([auc(y, s) for s in direction @ x.T])
    turned = train_auc < 0.5
    direction[turned] *= -1
    held_out = np.array([_held_out(space, y, groups, m, C, folds, seed) for m in methods])
    return Fitted(
        means[0],
        means[1],
        direction,
        np.linalg.norm(direction, axis=1),
        np.where(turned, 1 - train_auc, train_auc),
        held_out[:, 0],
        held_out[:, 1],
        [converged for _, converged in found],
    )


def _held_out(
    space: Span, y: NDArray, groups: NDArray, method: str, C: float, folds: int, seed: int
) -> tuple[float, float]:
    """AUROC and d′ of held-out training rows, means over folds whose parts have both classes.

    d′: difference of the class means over the pooled standard deviation. The sign of each fold's
    direction comes from its own training part.
    """
    aucs, ds = [], []
    for fit_rows, held_out in split(y, groups, folds, seed):
        w, _ = find(method, space.z[fit_rows], y[fit_rows], space.d, C)
        sign = -1.0 if auc(y[fit_rows], space.z[fit_rows] @ w) < 0.5 else 1.0
        scores, labels = sign * (space.z[held_out] @ w), y[held_out]
        aucs.append(auc(labels, scores))
        ds.append(d_prime(labels, scores))
    return (float(np.mean(aucs)), float(np.mean(ds))) if aucs else (np.nan, np.nan)


def split(
    y: NDArray, groups: NDArray, folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and held-out rows of each fold; groups stay together, both parts have both classes.

    Fewer folds where there are fewer groups; none with a single group.
    """
    from sklearn.model_selection import GroupKFold

    _, group = np.unique(groups, return_inverse=True)
    folds = min(folds, group.max() + 1)
    if folds < 2:
        return []
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    parts = GroupKFold(folds).split(y, y, order[group])
    return [(a, b) for a, b in parts if len(set(y[a])) == len(set(y[b])) == 2]


def d_prime(y: NDArray, scores: NDArray) -> float:
    """Difference of the class means over the pooled standard deviation; 0 without a spread."""
    a, b = scores[y == 1], scores[y == 0]
    spread = float(np.sqrt((a.var() + b.var()) / 2))
    return float(a.mean() - b.mean()) / spread if spread > 0 else 0.0
