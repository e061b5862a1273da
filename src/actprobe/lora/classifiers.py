"""Classifiers on LoRA features, each with its grid searched on the validation rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier: scores(x) -> [n, classes], larger is likelier; params: what was chosen.

    converged: None where nothing iterates.
    """

    scores: Callable[[Floats], NDArray[Any]]
    params: dict[str, Any]
    converged: bool | None


def accuracy(scores: NDArray[Any], y: NDArray[np.int64]) -> float:
    """Share of rows whose largest score is their class's."""
    return float((scores.argmax(axis=1) == y).mean())


def logreg(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    seed: int,
) -> Fitted:  # fmt: skip
    """Multinomial logistic regression with an L2 penalty; the C with the best validation accuracy.

    Every C starts from the weights of the one before. Ties go to the smaller C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=how["max_iter"], warm_start=True)
    best: tuple[float, dict[str, Any], Any, Any] | None = None
    for c in sorted(how["C"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=c).fit(x, y)
        weights = model.coef_.copy(), model.intercept_.copy()
        reached = accuracy(_linear(*weights)(x_val), y_val)
        if best is None or reached > best[0]:
            best = reached, {"C": c}, weights, bool(model.n_iter_.max() < how["max_iter"])
    assert best is not None
    return Fitted(_linear(*best[2]), best[1], best[3])


def svm(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    seed: int,
) -> Fitted:  # fmt: skip
    """Linear SVMs, one against the rest, squared hinge loss; C as for `logreg`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    best: tuple[float, dict[str, Any], Any, Any] | None = None
    for c in sorted(how["C"]):
        model = LinearSVC(C=c, dual="auto", max_iter=how["max_iter"], random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        weights = model.coef_, model.intercept_
        reached = accuracy(_linear(*weights)(x_val), y_val)
        if best is None or reached > best[0]:
            best = reached, {"C": c}, weights, bool(np.max(model.n_iter_) < how["max_iter"])
    assert best is not None
    return Fitted(_linear(*best[2]), best[1], best[3])


def ridge(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    seed: int,
) -> Fitted:  # fmt: skip
    """Least squares on ±1 targets with a ridge penalty; ties go to the larger alpha.

    One eigendecomposition of the smaller Gram matrix serves every alpha: with XXᵀ = VΛVᵀ the
    weights are XᵀV(Λ + α)⁻¹Vᵀ Y (Hoerl and Kennard 1970, in dual form where p > n).
    """
    targets = np.where(y[:, None] == np.arange(y.max() + 1), 1.0, -1.0)
    intercept = targets.mean(axis=0)
    centre = x.mean(axis=0, dtype=np.float64)
    wide = x - centre.astype(np.float32)
    dual = wide.shape[0] < wide.shape[1]
    gram = (wide @ wide.T if dual else wide.T @ wide).astype(np.float64)
    lam, v = np.linalg.eigh(gram)
    right = v.T @ (targets - intercept if dual else wide.T @ (targets - intercept))
    best: tuple[float, dict[str, Any], Any] | None = None
    for alpha in sorted(how["alpha"], reverse=True):
        solved = v @ (right / (np.maximum(lam, 0) + alpha)[:, None])
        coefficients = (wide.T @ solved if dual else solved).T
        weights = coefficients, intercept - coefficients @ centre
        reached = accuracy(_linear(*weights)(x_val), y_val)
        if best is None or reached > best[0]:
            best = reached, {"alpha": alpha}, weights
    assert best is not None
    return Fitted(_linear(*best[2]), best[1], None)


def tree(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    seed: int,
) -> Fitted:  # fmt: skip
    """A decision tree (CART, Gini impurity); ties go to the smaller depth."""
    from sklearn.tree import DecisionTreeClassifier

    best: tuple[float, dict[str, Any], Any] | None = None
    for depth in sorted(how["depth"]):
        model = DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(x, y)
        reached = accuracy(model.predict_proba(x_val), y_val)
        if best is None or reached > best[0]:
            best = reached, {"depth": depth}, model
        if model.get_depth() < depth:
            break
    assert best is not None
    return Fitted(best[2].predict_proba, best[1], None)


def _linear(
    coefficients: NDArray[Any], intercept: NDArray[Any]
) -> Callable[[Floats], NDArray[Any]]:
    """Scores of a linear model; two classes with one row of weights get the pair (-s, s)."""

    def scores(x: Floats) -> NDArray[Any]:
        s = x @ coefficients.T.astype(np.float32) + intercept
        return np.column_stack([-s[:, 0], s[:, 0]]) if s.shape[1] == 1 else s

    return scores
