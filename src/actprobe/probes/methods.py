"""The probe families: what each prepares, which hyperparameters it tries, which estimator it fits.

A family is chosen and parametrised by a method entry of a protocol. Everything runs in float64, and
scikit-learn's solvers do the work.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from actprobe.probes.sizes import CannotFit

Matrix = NDArray[np.float64]
Method = Mapping[str, Any]
Params = dict[str, Any]
Transform = Callable[[Matrix], Matrix]


def values(grid: Any) -> list[Any]:
    """The values of a protocol's grid: a list, or {logspace|linspace: [start, stop, number]}."""
    if isinstance(grid, Mapping):
        [(kind, (start, stop, number))] = grid.items()
        return getattr(np, kind)(start, stop, num=number).tolist()
    return list(grid)


def spread(top: int) -> list[int]:
    """At most ten whole numbers from 1 to `top`, evenly spaced on a log scale, cut to integers."""
    return np.unique(np.logspace(0, np.log2(top), num=10, base=2, dtype=int)).tolist()


def grid(method: Method, n: int, d: int, smallest_fit: int, seed: int) -> list[Params]:
    """Hyperparameters to try, in order: the first of the best wins.

    n, d: shape of the train matrix; smallest_fit: rows of the smallest fold's fit part.
    """
    match method["family"]:
        case "logreg" | "svm":
            scale = method.get("C_rows", n) / n
            return [{"C": c * scale} for c in values(method["C"])]
        case "lda":
            return [{"shrinkage": s} for s in values(method["shrinkage"])]
        case "pca":
            return [{"n_components": m} for m in spread(min(n, d, method["components"]))]
        case "knn":
            top = max(1, min(n - 1, method["neighbours"], smallest_fit))
            return [{"n_neighbors": k} for k in spread(top)]
    space = [(s["param"], values(s["values"])) for s in method["space"]]
    choice = _choice(method["family"], seed)
    return [{name: choice(v) for name, v in space} for _ in range(method["draws"])]


def _choice(family: str, seed: int) -> Callable[[Sequence[Any]], Any]:
    """A seeded draw from a list, with the generator that each published grid was drawn with."""
    if family == "xgboost":
        return random.Random(seed).choice
    legacy = np.random.RandomState(seed)
    return lambda options: options[legacy.randint(len(options))]


def estimator(method: Method, params: Params, seed: int) -> Any:
    """An unfitted scikit-learn classifier."""
    match method["family"]:
        case "logreg" | "pca":
            own = {k: v for k, v in params.items() if k != "n_components"}
            return LogisticRegression(**method["solver"], **own, random_state=seed)
        case "svm":
            return LinearSVC(**method["solver"], **params, random_state=seed)
        case "lda":
            return LinearDiscriminantAnalysis(**method["solver"], **params)
        case "knn":
            return KNeighborsClassifier(**params)
        case "xgboost":
            from xgboost import XGBClassifier

            fixed = {"eval_metric": "logloss", "random_state": seed, "n_jobs": 1}
            return XGBClassifier(**method.get("solver", {}), **params, **fixed)
        case "mlp":
            return MLPClassifier(**method["solver"], **params, random_state=seed)
    raise ValueError(f"unknown probe family {method['family']!r}")


def fit(model: Any, X: Matrix, y: NDArray[Any]) -> bool:
    """Fit in place; False when the solver stopped before it converged.

    Raises CannotFit for a discriminant of two rows, which needs more rows than classes, and where
    the numbers of a solver break down.
    """
    if isinstance(model, LinearDiscriminantAnalysis) and len(X) <= 2:
        raise CannotFit(f"a discriminant needs more than two rows, {len(X)} are fitted")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            model.fit(X, y)
        except (ArithmeticError, np.linalg.LinAlgError) as e:
            raise CannotFit(f"{type(model).__name__} found no solution: {e}") from e
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def scores(model: Any, X: Matrix) -> NDArray[np.float64]:
    """Probability of class 1 [n]; for a support vector machine, which has none, the logistic
    function of the distance from its hyperplane: the same order, not calibrated."""
    if isinstance(model, LinearSVC):
        return expit(model.decision_function(X))
    return model.predict_proba(X)[:, 1]


def columns(X: Matrix, params: Params) -> Matrix:
    """The columns that these hyperparameters use: leading principal components, or all."""
    return X[:, : params["n_components"]] if "n_components" in params else X


def prepare(method: Method, seed: int, X: Matrix, y: NDArray[Any]) -> tuple[Matrix, Transform]:
    """X [n, d] scaled, and projected or rotated, by what it and y say; and what does so to others.

    The second is a function from rows [m, d] to rows in the same columns as the first.
    """
    transform: Transform = _unchanged
    if method["scaler"] == "standard":
        transform = StandardScaler().fit(X).transform
        X = transform(X)
    if method["family"] == "pca":
        pca = PCA(n_components=min(*X.shape, method["components"]), random_state=seed)
        return pca.fit_transform(X), _then(transform, pca.transform)
    if "project" in method:
        if method["project"] == "random":
            direction = np.random.RandomState(seed).standard_normal((X.shape[1],))
        else:
            direction = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
        project = partial(_projected, direction / max(float(np.linalg.norm(direction)), 1e-300))
        return project(X), _then(transform, project)
    if method.get("rotate") and X.shape[1] > X.shape[0]:
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
    """Coordinates of the rows in the space that the n < d centred rows of X span.

    An L2-penalised linear model with a free intercept has the same optimum in these r <= n - 1
    coordinates Z (Z Zᵀ is the centred Gram matrix): its weights are a combination of the centred
    rows. Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, section 18.3.5.
    Returns Z [n, r] and a function from other rows [m, d] to their coordinates [m, r].
    """
    mean = X.mean(axis=0)
    centred = X - mean
    size, directions = np.linalg.eigh(centred @ centred.T)
    kept = size > 1e-12 * size[-1]
    if not kept.any():  # all rows are equal
        return np.zeros((len(X), 1)), lambda other: np.zeros((len(other), 1))
    size, directions = np.sqrt(size[kept]), directions[:, kept]
    basis = centred.T @ (directions / size)
    return directions * size, lambda other: (other - mean) @ basis


def json_params(params: Params) -> Params:
    """The hyperparameters to 12 digits: the last ones differ between math libraries."""
    return {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
