"""One probe: choose hyperparameters on validation rows, refit on all train rows, score the test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn import config_context

from actprobe.probes import metrics
from actprobe.probes.keep.steps import through
from actprobe.probes.kinds import BINARY, CONTINUOUS, MULTICLASS
from actprobe.probes.methods import How, Params, Shape, family
from actprobe.probes.methods.prepare import Matrix, Steps, columns, fit, prepare, scores
from actprobe.probes.validation import Fold

TEST_BYTES = 1 << 28  # of test rows that are prepared and scored at a time


@dataclass(frozen=True)
class Fitted:
    """A probe and its answers.

    scores: of the test rows, as `methods.prepare.scores` says; predicted: labels or values [n_test].
    val_score: the chosen hyperparameters' mean main metric over folds, or that of the train rows where
    there were none; converged: of the final fit; unconverged: how many fits of the search were not.
    model, before: the fitted estimator and the steps that stand before it. answer: scores of rows that
    are like X_test. held_out: of the train rows, by fits of the chosen hyperparameters that had not
    seen them (means, where there were several; NaN for a row that no fit left out); None without folds.
    """

    scores: NDArray[np.float64]
    predicted: NDArray[Any]
    val_score: float
    converged: bool
    unconverged: int
    params: Params
    model: Any = None
    before: Steps = ()
    train_score: float | None = None
    answer: Callable[[Any], NDArray[np.float64]] | None = None
    held_out: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Task:
    """What a fit starts from.

    X_train [n, d] float64 (or what the method reads), y_train [n]: 0/1, class numbers, or values;
    X_test [m, d], of which a block at a time is prepared and scored. how: the method's entry; rule:
    the protocol's validation; folds: from `validation.folds` by that rule, empty for train sets too
    small to validate; X_folds: for each fold the train rows with the columns that it chose itself, in
    place of X_train. X_validation [v, d], y_validation: the split's own validation rows, where it has
    some; then there are no folds. kind: of the label; n_classes: 0 for values; select: name of the
    metric that chooses, None for that of the label kind.
    """

    X_train: Any
    y_train: NDArray[Any]
    X_test: Any
    how: How
    folds: list[Fold]
    rule: Mapping[str, Any]
    seed: int
    kind: str = BINARY
    n_classes: int = 2
    X_folds: list[Matrix] | None = None
    X_validation: Any = None
    y_validation: NDArray[Any] | None = None
    select: str | None = None

    def one_sided(self, y: NDArray[Any]) -> bool:
        """Whether rows with these labels cannot be fitted: a class is missing, or all are equal."""
        return len(np.unique(y)) < (2 if self.kind == CONTINUOUS else self.n_classes)

    def scores(self, model: Any, X: Matrix) -> NDArray[np.float64]:
        return scores(model, X, self.kind, self.n_classes, self.how.get("scores") == "decision")

    def reached(self, model: Any, X: Matrix, y: NDArray[Any]) -> float:
        """The main metric of a fitted model on these rows."""
        return self.measured(model, X, y, self.scores(model, X))

    def measured(self, model: Any, X: Matrix, y: NDArray[Any], said: NDArray[np.float64]) -> float:
        """The same, of scores that are known."""
        predicted = None if self.select is None else model.predict(X)
        return metrics.main(self.kind, y, said, self.select, predicted)

    def estimator(self, params: Params, seed: int) -> Any:
        own = {k: v for k, v in params.items() if k != "n_components"}
        return family(self.how["family"]).make({**self.how, "kind": self.kind}, own, seed)


def search(task: Task) -> Fitted:
    """Fit one method, by its own search or by the common one."""
    found = family(task.how["family"])
    if found.own_search:
        return found.make(task)
    return _search(task) if task.X_validation is None else _held_out(task)


def answered(
    task: Task,
    decisions: Callable[[Any], NDArray[Any]],
    params: Params,
    model: Any,
    converged: bool = True,
) -> Fitted:
    """What a family with a search of its own has reached, on the rows of a task with validation rows.

    decisions(X) [n, classes]: larger is likelier; of two classes the scores are the probability of
    class 1 that softmax makes of them.
    """

    def reached(X: Any, y: NDArray[Any] | None) -> float:
        assert y is not None
        found = decisions(X)
        return metrics.main(
            task.kind, y, _of_kind(found, task.kind), task.select, found.argmax(axis=1)
        )

    found = decisions(task.X_test)
    return Fitted(
        scores=_of_kind(found, task.kind),
        predicted=found.argmax(axis=1),
        val_score=reached(task.X_validation, task.y_validation),
        converged=converged,
        unconverged=0,
        params=params,
        model=model,
        train_score=reached(task.X_train, task.y_train),
        answer=lambda X: _of_kind(decisions(X), task.kind),
    )


def _of_kind(decisions: NDArray[Any], kind: str) -> NDArray[np.float64]:
    if kind == BINARY:
        return expit(np.subtract(decisions[:, 1], decisions[:, 0], dtype=np.float64))
    return decisions.astype(np.float64)


@config_context(assume_finite=True, skip_parameter_validation=True)
def _held_out(task: Task) -> Fitted:
    """Every point of the grid on the train rows; the one that is best on the split's own validation
    rows, the first of equal ones, is kept as it was fitted.

    With `warm` each point starts from the weights of the one before.
    """
    how, seed, y = task.how, task.how.get("seed", task.seed), task.y_train
    X, before = prepare(how, seed, task.X_train, y)
    X_validation, y_validation = through(before, task.X_validation), task.y_validation
    assert y_validation is not None
    candidates = family(how["family"]).grid(how, Shape(len(X), X.shape[1], len(X)), seed)
    best: tuple[float, Any, Params, bool] | None = None
    model, unconverged = None, 0
    for params in candidates:
        if model is None or not how.get("warm"):
            model = task.estimator(params, seed)
        else:
            model = copy.copy(model).set_params(**params)
        converged = fit(model, columns(X, params), y)
        unconverged += not converged
        reached = task.reached(model, columns(X_validation, params), y_validation)
        if best is None or np.nan_to_num(reached, nan=-np.inf) > best[0]:
            best = float(np.nan_to_num(reached, nan=-np.inf)), model, params, converged
    assert best is not None
    val_score, model, params, converged = best
    X_test = columns(through(before, task.X_test), params)
    return Fitted(
        scores=task.scores(model, X_test),
        predicted=model.predict(X_test),
        val_score=val_score if np.isfinite(val_score) else math.nan,
        converged=converged,
        unconverged=unconverged,
        params=params,
        model=model,
        before=before,
        train_score=task.reached(model, columns(X, params), y),
        answer=lambda rows: task.scores(model, columns(through(before, rows), params)),
    )


@config_context(assume_finite=True, skip_parameter_validation=True)
def _search(task: Task) -> Fitted:
    """Every point of the grid on every fold, then the best on all train rows.

    A fold whose fit part lacks a class scores `one_class_fold`. Of equal scores (to `digits`, where
    given) the first hyperparameters win, with `ties` the first of those that are right most often; so
    does the first when no fold has a score (val_score is then NaN).
    """
    X_train, y_train, how, rule = task.X_train, task.y_train, task.how, task.rule
    n, d = X_train.shape
    seed = how.get("seed", task.seed)
    Z_train, before = prepare(how, seed, X_train, y_train)
    test = _Test(task, before, how.get("tiny_scores") == "unscaled" and not task.folds)
    if not task.folds:
        return _final(task, how["tiny"], Z_train, test, seed)
    smallest = min(len(a) for a, _ in task.folds)
    candidates = family(how["family"]).grid(how, Shape(n, d, smallest), seed)
    found = np.empty((len(task.folds), len(candidates)))
    right = np.zeros_like(found) if task.kind == MULTICLASS and rule.get("ties") else None
    held_out: list[list[tuple[Any, NDArray[np.float64]]]] = [[] for _ in candidates]
    unconverged = 0
    for i, (a, b) in enumerate(task.folds):
        if task.one_sided(y_train[a]):
            found[i] = 0.0 if task.kind == CONTINUOUS else rule["one_class_fold"]
            continue
        if how.get("scaler_rows", "fit") == "train":
            Z_fit, Z_val = Z_train[a], Z_train[b]
        else:
            X = X_train if task.X_folds is None else task.X_folds[i]
            Z_fit, of_fold = prepare(how, seed, X[a], y_train[a])
            Z_val = through(of_fold, X[b])
        for j, params in enumerate(candidates):
            model = task.estimator(params, seed)
            unconverged += not fit(model, columns(Z_fit, params), y_train[a])
            Z = columns(Z_val, params)
            said = task.scores(model, Z)
            found[i, j] = task.measured(model, Z, y_train[b], said)
            if right is not None:
                right[i, j] = np.mean(model.predict(Z) == y_train[b])
            held_out[j].append((b, said))
    mean = np.array([np.mean(column) for column in found.T.copy()])
    best = _first_of_best(
        np.round(mean, rule["digits"]) if "digits" in rule else mean,
        None if right is None else right.mean(axis=0),
    )
    final = _final(task, candidates[best], Z_train, test, seed)
    return replace(
        final,
        val_score=float(mean[best]),
        unconverged=unconverged,
        held_out=averaged(held_out[best], n),
    )


def _first_of_best(score: NDArray[np.float64], right: NDArray[np.float64] | None) -> int:
    """The candidate with the largest score, of equal ones with the largest `right`, of equal ones the
    first; the first without a score, if one has none."""
    best = int(np.argmax(score))
    if right is None or np.isnan(score[best]):
        return best
    return int(np.argmax(np.where(score == score[best], right, -1.0)))


def averaged(said: list[tuple[Any, NDArray[np.float64]]], n: int) -> NDArray[np.float64] | None:
    """Scores of n train rows from pairs of (rows, their scores): means, NaN for a row in no pair."""
    if not said:
        return None
    total = np.zeros((n, *said[0][1].shape[1:]))
    times = np.zeros(n)
    for rows, scored in said:
        total[rows] += scored
        times[rows] += 1
    times[times == 0] = np.nan
    return np.asarray(total / times.reshape(-1, *[1] * (total.ndim - 1)))


@dataclass(frozen=True)
class _Test:
    """Test rows [m, d] and what prepares them; unscaled: they are scored (not classified) as they
    are, which is what sae-probes does with probes of two or three rows."""

    task: Task
    before: Steps
    unscaled: bool

    def answers(self, model: Any, params: Params) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Scores and predicted labels [m] of a fitted model."""
        rows = self.task.X_test
        most = max(1, TEST_BYTES // (8 * rows.shape[1]))
        said, predicted = [], []
        for first in range(0, len(rows), most):
            x = rows[first : first + most].astype(np.float64, copy=False)
            z = columns(through(self.before, x), params)
            said.append(self.task.scores(model, columns(x, params) if self.unscaled else z))
            predicted.append(model.predict(z))
        return np.concatenate(said), np.concatenate(predicted)


def _final(task: Task, params: Params, X: Matrix, test: _Test, seed: int) -> Fitted:
    """The fit on all train rows X [n, d]."""
    y = task.y_train
    if task.how.get("refit") == "permuted":
        order = np.random.RandomState(seed).permutation(len(X))
        X, y = X[order], y[order]
    X = columns(X, params)
    model = task.estimator(params, seed)
    converged = fit(model, X, y)
    said, predicted = test.answers(model, params)
    before = () if test.unscaled else test.before
    return Fitted(
        scores=said,
        predicted=predicted,
        val_score=task.reached(model, X, y),
        converged=converged,
        unconverged=0,
        params=params,
        model=model,
        before=before,
        answer=lambda rows: task.scores(model, columns(through(before, rows), params)),
    )
