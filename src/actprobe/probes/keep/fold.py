"""Fitted estimators as kept models (`form.Kept`): what a family of methods names as its `keep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.keep import steps
from actprobe.probes.keep.form import Kept
from actprobe.probes.kinds import BINARY, CONTINUOUS, MULTICLASS

if TYPE_CHECKING:
    from actprobe.probes.search import Fitted, Task


def planes(coef: NDArray[Any], intercept: NDArray[Any], link: str, before: Any = ()) -> Kept:
    """Linear models, coef [c, m] and intercept [c], with the steps before them folded in."""
    wide, at = np.atleast_2d(coef).astype(np.float64), np.atleast_1d(intercept).astype(np.float64)
    lifted, offset = steps.lifted(before, wide, np.broadcast_to(at, len(wide)))
    if len(lifted) == 1:
        lifted, offset = lifted[0], offset[0]
    return Kept("linear", {"coef": lifted, "intercept": np.asarray(offset)}, link=link)


def linear(fitted: Fitted, task: Task) -> Kept:
    """Of an estimator with `coef_` and `intercept_`, or of one such for each class (`estimators_`)."""
    model = fitted.model
    each = getattr(model, "estimators_", None)
    link = {BINARY: "logistic", CONTINUOUS: "none", MULTICLASS: "softmax"}[task.kind]
    if task.kind == MULTICLASS and task.how.get("scores") == "decision":
        link = "none"
    elif each is not None:
        link = "shares"
    if each is not None:
        coef = np.concatenate([e.coef_ for e in each])
        return planes(coef, np.concatenate([e.intercept_ for e in each]), link, fitted.before)
    return planes(model.coef_, model.intercept_, link, fitted.before)


def layers(weights: list[Any], biases: list[Any], activation: str, link: str) -> Kept:
    """A perceptron of these layers: weights [out, in] each, biases [out]."""
    arrays = {f"weight_{i}": np.asarray(w, np.float64) for i, w in enumerate(weights)}
    arrays |= {f"bias_{i}": np.asarray(b, np.float64) for i, b in enumerate(biases)}
    return Kept("layers", arrays, (), link, {"activation": activation, "layers": len(weights)})


def perceptron(fitted: Fitted, task: Task) -> Kept:
    """Of scikit-learn; with values that were standardised for the fit in their own unit again."""
    model, link = fitted.model, {BINARY: "logistic", MULTICLASS: "softmax"}.get(task.kind, "none")
    scale = mean = None
    if task.kind == CONTINUOUS:
        scale, mean = model.transformer_.scale_, model.transformer_.mean_
        model = model.regressor_
    weights, biases = [w.T for w in model.coefs_], list(model.intercepts_)
    if scale is not None:
        weights[-1], biases[-1] = weights[-1] * scale[:, None], biases[-1] * scale + mean
    weights[0], biases[0] = steps.lifted(fitted.before, weights[0], biases[0])
    return layers(weights, biases, model.activation, link)


def tree(fitted: Fitted, task: Task) -> Kept:
    """Of scikit-learn."""
    of = fitted.model.tree_
    value = of.value[:, 0, :]
    if task.kind != MULTICLASS:
        value = value[:, -1]
    arrays = {
        "left": of.children_left, "right": of.children_right, "feature": of.feature,
        "threshold": of.threshold, "value": value,
    }  # fmt: skip
    return Kept("tree", arrays, fitted.before)


def boosted(fitted: Fitted, task: Task) -> Kept:
    """Of XGBoost."""
    content = fitted.model.get_booster().save_raw(raw_format="ubj")
    return Kept("boosted", {"model": np.frombuffer(bytes(content), np.uint8)}, fitted.before)


def neighbours(fitted: Fitted, task: Task) -> Kept:
    """The labels of the train rows. The rows themselves are where the source is: a copy would be
    larger than all other models together."""
    how = {"neighbours": fitted.model.n_neighbors, "kind": task.kind}
    return Kept("neighbours", {"y": np.asarray(task.y_train)}, fitted.before, how=how)
