"""One probe: choose hyperparameters on validation rows, refit on all train rows, score the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

from actprobe.probes import methods, metrics
from actprobe.probes.methods import Matrix, Method, Params
from actprobe.probes.validation import Fold

TEST_BYTES = 1 << 28  # of test rows that are prepared and scored at a time


@dataclass(frozen=True)
class Fitted:
    """A probe's answers. scores: probability of class 1 [n_test]; predicted: labels [n_test].

    val_auc: the chosen hyperparameters' mean AUC over folds, or the train AUC where there were
    none; converged: of the final fit; unconverged: how many fits of the search were not.
    """

    scores: NDArray[np.float64]
    predicted: NDArray[Any]
    val_auc: float
    converged: bool
    unconverged: int
    params: Params


@config_context(assume_finite=True, skip_parameter_validation=True)
def search(
    X_train: Matrix,
    y_train: NDArray[Any],
    X_test: Matrix,
    method: Method,
    folds: list[Fold],
    rule: Mapping[str, Any],
    seed: int,
    X_folds: list[Matrix] | None = None,
) -> Fitted:
    """Fit one method. X_train [n, d] float64, y_train 0/1 [n]; X_test [m, d], float32 or float64, of
    which a block at a time is prepared and scored.

    rule: the protocol's validation; folds: from `validation.folds` by that rule, empty for train
    sets too small to validate; X_folds: for each fold the train rows [n, d] with the columns that
    it chose itself, in place of X_train. A fold whose fit part has one class scores
    `one_class_fold`. Of equal scores (to `digits`, where given) the first hyperparameters win; so
    they do when no fold has a score (val_auc is then NaN).
    """
    n, d = X_train.shape
    seed = method.get("seed", seed)
    Z_train, transform = methods.prepare(method, seed, X_train, y_train)
    test = _Test(X_test, transform, method.get("tiny_scores") == "unscaled" and not folds)
    if not folds:
        return _final(method, method["tiny"], Z_train, y_train, test, seed)
    smallest = min(len(a) for a, _ in folds)
    candidates = methods.grid(method, n, d, smallest, seed)
    scores = np.empty((len(folds), len(candidates)))
    unconverged = 0
    for i, (a, b) in enumerate(folds):
        if len(np.unique(y_train[a])) < 2:
            scores[i] = rule["one_class_fold"]
            continue
        if method.get("scaler_rows", "fit") == "train":
            Z_fit, Z_val = Z_train[a], Z_train[b]
        else:
            X = X_train if X_folds is None else X_folds[i]
            Z_fit, of_fold = methods.prepare(method, seed, X[a], y_train[a])
            Z_val = of_fold(X[b])
        for j, params in enumerate(candidates):
            model = methods.estimator(method, params, seed)
            unconverged += not methods.fit(model, methods.columns(Z_fit, params), y_train[a])
            probability = methods.scores(model, methods.columns(Z_val, params))
            scores[i, j] = metrics.auc(y_train[b], probability)
    mean = np.array([np.mean(column) for column in scores.T.copy()])
    best = int(np.argmax(np.round(mean, rule["digits"]) if "digits" in rule else mean))
    final = _final(method, candidates[best], Z_train, y_train, test, seed)
    return replace(final, val_auc=float(mean[best]), unconverged=unconverged)


@dataclass(frozen=True)
class _Test:
    """Test rows x [m, d] and what prepares them; unscaled: they are scored (not classified) as they
    are, which is what sae-probes does with probes of two or three rows."""

    x: NDArray[Any]
    transform: methods.Transform
    unscaled: bool

    def answers(self, model: Any, params: Params) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Scores and predicted labels [m] of a fitted model."""
        most = max(1, TEST_BYTES // (8 * self.x.shape[1]))
        scores, predicted = [], []
        for first in range(0, len(self.x), most):
            x = self.x[first : first + most].astype(np.float64, copy=False)
            z = methods.columns(self.transform(x), params)
            scored = methods.columns(x, params) if self.unscaled else z
            scores.append(methods.scores(model, scored))
            predicted.append(model.predict(z))
        return np.concatenate(scores), np.concatenate(predicted)


def _final(
    method: Method, params: Params, X: Matrix, y: NDArray[Any], test: _Test, seed: int
) -> Fitted:
    """The fit on all train rows X [n, d]."""
    if method.get("refit") == "permuted":
        order = np.random.RandomState(seed).permutation(len(X))
        X, y = X[order], y[order]
    X = methods.columns(X, params)
    model = methods.estimator(method, params, seed)
    converged = methods.fit(model, X, y)
    scores, predicted = test.answers(model, params)
    return Fitted(
        scores=scores,
        predicted=predicted,
        val_auc=metrics.auc(y, methods.scores(model, X)),
        converged=converged,
        unconverged=0,
        params=params,
    )
