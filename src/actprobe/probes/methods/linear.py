"""Linear probes."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from actprobe.probes.keep import fold
from actprobe.probes.kinds import CONTINUOUS, MULTICLASS
from actprobe.probes.methods import How, Params, Shape, method
from actprobe.probes.methods.grids import penalties, spread, values


@method("logreg", grid=penalties, keep=fold.linear)
def logreg(how: How, params: Params, seed: int) -> Any:
    """Multinomial of several classes; by liblinear, which has none, one against the rest."""
    model = LogisticRegression(**how["solver"], **params, random_state=seed)
    if how["kind"] == MULTICLASS and how["solver"].get("solver") == "liblinear":
        return OneVsRestClassifier(model)
    return model


@method("svm", grid=penalties, keep=fold.linear)
def svm(how: How, params: Params, seed: int) -> LinearSVC:
    """One against the rest where there are several classes."""
    return LinearSVC(**how["solver"], **params, random_state=seed)


def _alphas(how: How, shape: Shape, seed: int) -> list[Params]:
    """alpha · n: the penalty keeps its weight against the mean loss."""
    return [{"alpha": a * shape.n} for a in values(how["alpha"])]


@method("ridge", grid=_alphas, keep=fold.linear)
def ridge(how: How, params: Params, seed: int) -> Any:
    """Least squares with an L2 penalty, of values, or of ±1 for each class (Hoerl and Kennard 1970)."""
    kind = Ridge if how["kind"] == CONTINUOUS else RidgeClassifier
    return kind(**how.get("solver", {}), **params)


def _components(how: How, shape: Shape, seed: int) -> list[Params]:
    return [{"n_components": m} for m in spread(min(shape.n, shape.d, how["components"]))]


@method("pca", grid=_components, keep=fold.linear)
def leading_components(how: How, params: Params, seed: int) -> LogisticRegression:
    """Logistic regression on leading principal components, whose number is the hyperparameter."""
    return LogisticRegression(**how["solver"], random_state=seed)
