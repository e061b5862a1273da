"""Directions of the null: each method fitted on training labels that were exchanged at random.

A method of its own has a null of its own: the AUROC of a mean difference without a signal follows the
leading components of the rows, that of a whitened or fitted direction does not. All label vectors are
fitted at once, in the coordinates in which the scatter of the rows is diagonal, so that 200 fits cost
about as much as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from actprobe.probes.methods.directions import Vector
from actprobe.probes.methods.span import Matrix, Span
from actprobe.probes.metrics.binary import aucs
from actprobe.probes.permute import arrangements, exchanged

FEWEST = 40  # orders of the labels from which 2.5 % of them are one
_AT_ONCE = 1 << 22  # scores of training rows in memory
_TOLERANCE, _STEPS = 1e-4, 1000  # of the logistic regressions: relative step, and how many


@dataclass(frozen=True)
class Principal:
    """Rows in the coordinates in which their scatter is diagonal.

    z: centred [n, r]; size: [r], squared lengths of its columns; axes: [d, r]; d: width of the rows.
    """

    z: Matrix
    size: Vector
    axes: Matrix
    d: int


def principal(space: Span) -> Principal:
    """The principal coordinates of the rows of a span."""
    if space.axes is not None:
        return Principal(space.z, np.einsum("ij,ij->j", space.z, space.z), space.axes, space.d)
    size, axes = np.linalg.eigh(space.z.T @ space.z)
    return Principal(space.z @ axes, np.maximum(size, 0.0), axes, space.d)


def labels(
    y: NDArray[Any], pair: NDArray[Any] | None, group: NDArray[Any], k: int, seed: int
) -> tuple[NDArray[np.int8], float]:
    """0/1 labels [k, n] as they could have been, and how many orders are possible.

    Within pairs (names or None, [n]) that have one row of each class the two labels are swapped or
    not; otherwise they are exchanged as far as the groups [n] allow it (`permute.exchanged`).
    """
    rng = np.random.default_rng([seed, 1])
    if pair is not None and _one_of_each(y, pair):
        group = np.unique(pair.astype(str), return_inverse=True)[1]
    made = np.stack([exchanged(y, group, rng) for _ in range(k)]).astype(np.int8)
    return made, arrangements(y, group)


def _one_of_each(y: NDArray[Any], pair: NDArray[Any]) -> bool:
    if any(p is None for p in pair):
        return False
    _, at = np.unique(pair.astype(str), return_inverse=True)
    return bool((np.bincount(at) == 2).all() and (np.bincount(at, weights=y) == 1).all())


def units(along: str, rows: Principal, made: NDArray[Any], C: float) -> tuple[Matrix, bool]:
    """Unit directions [k, d] of a method for labels [k, n], turned as real ones are, and whether all
    converged. A direction points to class 1 by the AUROC of the training rows."""
    found, converged = [], True
    for y in _blocks(made):
        difference = _weights(y) @ rows.z
        if along == "mean_difference":
            w = difference
        elif along == "lda":
            w = _whitened(rows, y, difference)
        else:
            w, solved = _logistic(rows, y, C)
            converged &= solved
        w /= np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)
        w[_aucs(y, w @ rows.z.T) < 0.5] *= -1
        found.append(w @ rows.axes.T)
    return np.concatenate(found), converged


def _blocks(made: NDArray[Any]) -> Iterator[NDArray[Any]]:
    most = max(1, _AT_ONCE // made.shape[1])
    for first in range(0, len(made), most):
        yield made[first : first + most]


def _weights(y: NDArray[Any]) -> Matrix:
    """What the rows weigh in the difference of the class means [k, n]."""
    positive = y.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.where(y == 1, 1 / positive, -1 / (y.shape[1] - positive))


def _aucs(y: NDArray[Any], scores: Matrix) -> Vector:
    return np.array([aucs(own, s[None])[0] for own, s in zip(y, scores, strict=True)])


def _whitened(rows: Principal, y: NDArray[Any], difference: Matrix) -> Matrix:
    """`directions._whitened` for labels [k, n] and differences of class means [k, r].

    The scatter within classes is the diagonal total scatter less c δδᵀ, c = n₁n₀/n. A correction of
    rank one along δ leaves the direction of Σ⁻¹δ alone (Sherman and Morrison 1950); the shrinkage
    of Ledoit and Wolf follows from the same numbers.
    """
    n, size, d = len(rows.z), rows.size, rows.d
    share = y.mean(axis=1, dtype=np.float64)
    c = share * (1 - share) * n
    squared = np.einsum("kr,kr->k", difference, difference)
    mean_variance = (size.sum() - c * squared) / n / d
    of_covariance = (size @ size - 2 * c * (difference**2 @ size) + (c * squared) ** 2) / n**2
    # Squared distance of each row from the mean of its class: ‖z‖² - 2 w z·δ + w²‖δ‖².
    w = np.where(y == 1, 1 - share[:, None], -share[:, None])
    within = -2 * w * (difference @ rows.z.T) + w**2 * squared[:, None]
    within += np.einsum("nr,nr->n", rows.z, rows.z)
    spread = of_covariance / d - mean_variance**2
    error = (np.einsum("kn,kn->k", within, within) / n - of_covariance) / n / d
    with np.errstate(divide="ignore", invalid="ignore"):
        shrinkage = np.where(spread > 0, np.minimum(error, spread) / spread, 1.0)[:, None]
    return difference / ((1 - shrinkage) * size / n + shrinkage * mean_variance[:, None] + 1e-300)


def _logistic(rows: Principal, y: NDArray[Any], C: float) -> tuple[Matrix, bool]:
    """`directions._logreg` for labels [k, n]: weights [k, r], and whether all converged.

    Minorisation and maximisation: the Hessian of a logistic loss is at most ZᵀZ/4 (Böhning and
    Lindsay 1988), which is diagonal here; with the momentum of Nesterov, restarted where a step
    goes against it (O'Donoghue and Candès 2015).
    """
    n = len(rows.z)
    scale = float(np.sqrt(rows.size.sum() / n)) or 1.0
    z, bound = rows.z / scale, rows.size / scale**2 / 4 + 1 / C
    w = np.zeros((len(y), z.shape[1]))
    intercept = np.zeros(len(y))
    at, at_intercept, t = w, intercept, 1.0
    for _ in range(_STEPS):
        residual = expit(at @ z.T + at_intercept[:, None]) - y
        new = at - (residual @ z + at / C) / bound
        new_intercept = at_intercept - residual.sum(axis=1) * 4 / n
        step = np.linalg.norm(new - w, axis=1)
        if (step <= _TOLERANCE * np.linalg.norm(new, axis=1)).all():
            return new / scale, True
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        against = np.einsum("kr,kr->k", at - new, new - w) > 0
        momentum = np.where(against, 0.0, (t - 1) / following)
        at = new + momentum[:, None] * (new - w)
        at_intercept = new_intercept + momentum * (new_intercept - intercept)
        w, intercept, t = new, new_intercept, following
    return w / scale, False
