"""What stands before an estimator: scaling, projection, principal components, and its answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from actprobe.probes.keep.steps import Affine, Components, Projected, Rotated, Scaled, through
from actprobe.probes.kinds import BINARY, CONTINUOUS
from actprobe.probes.methods import How, Params
from actprobe.probes.methods.span import span
from actprobe.probes.sizes import CannotFit

Matrix = NDArray[np.float64]
Steps = tuple[Affine, ...]

_BLOCK = 1 << 22  # numbers of float32 rows that are scored at a time, in float64


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
    """What a fitted model says of rows X, in float64 whatever their own type.

    Binary: the probability of class 1 [n]. Multiclass: of each class [n, n_classes], 0 for a class
    that it was not fitted on. For models without probabilities the logistic function, or softmax, of
    the distances from their planes: the same order, not calibrated. With `decision_values` those of
    several classes are the distances themselves, which rank rows by one class alone. Continuous: the
    prediction [n].
    """
    if X.dtype != np.float32:
        return _scores(model, X, kind, n_classes, decision_values)
    most = max(1, _BLOCK // X.shape[1])
    found = [
        _scores(model, X[i : i + most].astype(np.float64), kind, n_classes, decision_values)
        for i in range(0, max(len(X), 1), most)
    ]
    return np.concatenate(found)


def _scores(
    model: Any, X: Matrix, kind: str, n_classes: int, decision_values: bool
) -> NDArray[np.float64]:
    if kind == CONTINUOUS:
        return np.asarray(model.predict(X), np.float64)
    if decision_values and kind == BINARY:
        return np.asarray(expit(model.decision_function(X)))
    if decision_values:
        return _of_every_class(np.asarray(model.decision_function(X)), model, n_classes)
    if hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(X))
        if kind == BINARY:
            return np.asarray(found[:, 1], np.float64)
    else:
        decision = np.asarray(model.decision_function(X), np.float64)
        if kind == BINARY:
            return np.asarray(expit(decision))
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


def prepare(how: How, seed: int, X: Matrix, y: NDArray[Any]) -> tuple[Matrix, Steps]:
    """X [n, d] scaled, and projected or rotated, by what it and y say; and the steps that do so to
    other rows [m, d]."""
    before: Steps = ()
    if how["scaler"] == "standard":
        scaler = StandardScaler().fit(X)
        before = (Scaled(scaler.mean_, scaler.scale_),)
        X = through(before, X)
    if how["family"] == "pca":
        pca = PCA(n_components=min(*X.shape, how["components"]), random_state=seed)
        found = pca.fit_transform(X)
        return found, (*before, Components(pca.components_, pca.mean_))
    if "project" in how:
        if how["project"] == "random":
            direction = np.random.RandomState(seed).standard_normal((X.shape[1],))
        else:
            direction = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
        project = Projected(direction / max(float(np.linalg.norm(direction)), 1e-300))
        return project(X), (*before, project)
    if how.get("rotate") and X.shape[1] > X.shape[0]:
        X, rotation = rotate(X)
        return X, (*before, rotation)
    return X, before


def rotate(X: Matrix) -> tuple[Matrix, Rotated]:
    """Coordinates of rows with n < d in the space that they span (`span.span`), and the step from
    other rows [m, d] to theirs. One column of zeros where all rows are equal."""
    space = span(X)
    assert space.axes is not None  # of fewer rows than columns
    rotation = Rotated(space.axes, X.mean(axis=0))
    return (space.z if space.axes.shape[1] else np.zeros((len(X), 1))), rotation


def json_params(params: Params) -> Params:
    """The hyperparameters to 12 digits: the last ones differ between math libraries."""
    return {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
