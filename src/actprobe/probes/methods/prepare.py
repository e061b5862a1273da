"""What stands before an estimator: scaling, projection, principal components, and its answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from actprobe.probes.kinds import BINARY, CONTINUOUS
from actprobe.probes.methods import How, Params
from actprobe.probes.methods.span import span
from actprobe.probes.sizes import CannotFit

Matrix = NDArray[np.float64]
Transform = Callable[[Matrix], Matrix]


def fit(model: Any, X: Matrix, y: NDArray[Any]) -> bool:
    """Fit in place; False when the solver stopped before it converged.

    Raises CannotFit for a discriminant of as few rows as classes, and where the numbers of a solver
    break down.
    """
    if isinstance(model, LinearDiscriminantAnalysis):
        least = len(np.unique(y))
        if len(X) <= least:
            rows = "two" if least == 2 else str(least)
            raise CannotFit(f"a discriminant needs more than {rows} rows, {len(X)} are fitted")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            model.fit(X, y)
        except (ArithmeticError, np.linalg.LinAlgError) as e:
            raise CannotFit(f"{type(model).__name__} found no solution: {e}") from e
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def scores(
    model: Any, X: Matrix, kind: str, n_classes: int = 2, decision_values: bool = False
) -> NDArray[np.float64]:
    """What a fitted model says of rows X.

    Binary: the probability of class 1 [n]. Multiclass: of each class [n, n_classes], 0 for a class
    that it was not fitted on. For models without probabilities the logistic function, or softmax, of
    the distances from their planes: the same order, not calibrated. With `decision_values` those of
    several classes are the distances themselves, which rank rows by one class alone. Continuous: the
    prediction [n].
    """
    if kind == CONTINUOUS:
        return np.asarray(model.predict(X), np.float64)
    if decision_values and kind == BINARY:  # not of float32, in which many are equal
        return expit(np.asarray(model.decision_function(X), np.float64))
    if decision_values:
        return _of_every_class(np.asarray(model.decision_function(X)), model, n_classes)
    if hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(X))
        if kind == BINARY:
            return found[:, 1]
    else:
        decision = np.asarray(model.decision_function(X), np.float64)
        if kind == BINARY:
            return expit(decision)
        if decision.ndim == 1:
            decision = np.column_stack([-decision, decision])
        found = softmax(decision, axis=1)
    return _of_every_class(found, model, n_classes)


def _of_every_class(found: NDArray[Any], model: Any, n_classes: int) -> NDArray[np.float64]:
    """Columns [n, n_classes] of scores of the classes that a model was fitted on."""
    if found.shape[1] == n_classes:
        return found.astype(np.float64, copy=False)
    whole = np.zeros((len(found), n_classes))
    whole[:, model.classes_] = found
    return whole


def columns(X: Matrix, params: Params) -> Matrix:
    """The columns that these hyperparameters use: leading principal components, or all."""
    return X[:, : params["n_components"]] if "n_components" in params else X


def prepare(how: How, seed: int, X: Matrix, y: NDArray[Any]) -> tuple[Matrix, Transform]:
    """X [n, d] scaled, and projected or rotated, by what it and y say; and what does so to others.

    The second is a function from rows [m, d] to rows in the same columns as the first.
    """
    transform: Transform = _unchanged
    if how["scaler"] == "standard":
        transform = StandardScaler().fit(X).transform
        X = transform(X)
    if how["family"] == "pca":
        pca = PCA(n_components=min(*X.shape, how["components"]), random_state=seed)
        return pca.fit_transform(X), _then(transform, pca.transform)
    if "project" in how:
        if how["project"] == "random":
            direction = np.random.RandomState(seed).standard_normal((X.shape[1],))
        else:
            direction = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
        project = partial(_projected, direction / max(float(np.linalg.norm(direction)), 1e-300))
        return project(X), _then(transform, project)
    if how.get("rotate") and X.shape[1] > X.shape[0]:
        X, rotation = rotate(X)
        return X, _then(transform, rotation)
    return X, transform


def _unchanged(X: Matrix) -> Matrix:
    return X


def _then(first: Transform, second: Transform) -> Transform:
    return second if first is _unchanged else lambda X: second(first(X))


def _projected(direction: NDArray[Any], X: Matrix) -> Matrix:
    return (X @ direction)[:, None]


def rotate(X: Matrix) -> tuple[Matrix, Transform]:
    """Coordinates of rows with n < d in the space that they span (`span.span`), and a function from
    other rows [m, d] to theirs. One column of zeros where all rows are equal."""
    space, mean = span(X), X.mean(axis=0)
    axes = space.axes
    assert axes is not None  # of fewer rows than columns
    if not axes.shape[1]:
        return np.zeros((len(X), 1)), lambda other: np.zeros((len(other), 1))
    return space.z, lambda other: (other - mean) @ axes


def json_params(params: Params) -> Params:
    """The hyperparameters to 12 digits: the last ones differ between math libraries."""
    return {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
