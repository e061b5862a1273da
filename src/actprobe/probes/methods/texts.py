"""Baselines that read the texts alone: what can be told without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from actprobe.probes import metrics
from actprobe.probes.keep import Kept, scorers
from actprobe.probes.kinds import BINARY
from actprobe.probes.methods import method
from actprobe.probes.search import Fitted, Task, averaged
from actprobe.probes.sizes import CannotFit

_FOLDS = 5

Answer = Callable[[NDArray[Any]], NDArray[np.float64]]
Made = tuple[Kept, Answer]  # a model, and what it says of texts [m]
Maker = Callable[[NDArray[Any], NDArray[Any]], Made]


def _kept(fitted: Fitted, task: Task) -> Kept:
    model: Kept = fitted.model
    return model


@method("text_length", own_search=True, keep=_kept)
def text_length(task: Task) -> Fitted:
    """Characters of a text, fewer for class 1 where its training texts are the shorter ones."""
    return _fitted(task, lengths)


@method("tfidf", own_search=True, keep=_kept)
def tfidf(task: Task) -> Fitted:
    """The words of the training texts: TF-IDF with a logistic regression.

    With `in_domain: true` in its entry the test texts train, fold by fold (see `in_domain`).
    """
    return _fitted(task, words)


def lengths(train: NDArray[Any], y: NDArray[Any]) -> Made:
    """For each text a number in (0, 1) that grows with its characters, or falls with them."""
    of_train = np.array([len(text) for text in train], float)
    sign = -1.0 if metrics.main(BINARY, y, of_train) < 0.5 else 1.0
    scale = sign / (of_train.std() or 1.0)
    arrays = {"coef": np.array(scale), "intercept": np.array(-scale * of_train.mean())}
    kept = Kept("lengths", arrays, link="soft_sign")
    return kept, lambda texts: scorers.linked(scorers.lengths(arrays, {}, texts), "soft_sign")


def words(train: NDArray[Any], y: NDArray[Any]) -> Made:
    """Probabilities of class 1. Raises CannotFit where the training texts hold no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(sublinear_tf=True)
    try:
        x = vectors.fit_transform(train)
    except ValueError as e:  # an empty vocabulary
        raise CannotFit("the training texts hold no words of two letters") from e
    model = LogisticRegression(C=10, max_iter=1000).fit(x, y)
    known = json.dumps(vectors.get_feature_names_out().tolist(), ensure_ascii=False)
    arrays = {
        "coef": model.coef_[0],
        "intercept": model.intercept_[0],
        "idf": vectors.idf_,
        "vocabulary": np.frombuffer(known.encode(), np.uint8),
    }
    return Kept("words", arrays, link="logistic"), lambda texts: np.asarray(
        expit(model.decision_function(vectors.transform(texts))), np.float64
    )


def _fitted(task: Task, make: Maker) -> Fitted:
    x, y = task.X_train, task.y_train
    kept, answer = make(x, y)
    said = answer(task.X_test)
    held_out = [(b, make(x[a], y[a])[1](x[b])) for a, b in task.folds if not task.one_sided(y[a])]
    validated = [metrics.main(task.kind, y[b], scored) for b, scored in held_out]
    return Fitted(
        scores=said,
        predicted=(said > 0.5).astype(np.int64),
        val_score=float(np.mean(validated)) if validated else np.nan,
        converged=True,
        unconverged=0,
        params={},
        model=kept,
        answer=answer,
        held_out=averaged(held_out, len(y)),
    )


def in_domain(texts: NDArray[Any], y: NDArray[Any], groups: NDArray[Any]) -> Fitted:
    """`tfidf` of test texts [n] by themselves, each scored by a fold without it, whole groups [n]
    together: the most that words can tell here, and so no fair rival of a probe trained elsewhere.

    Raises CannotFit where there are too few rows or groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    too_few = CannotFit("too few test rows or groups of each class to train on some of them")
    folds = min(_FOLDS, int(np.bincount(y).min()), len(set(groups)))
    if folds < 2:
        raise too_few
    said = np.empty(len(y))
    cv = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for a, b in cv.split(texts, y, groups):
        if len(set(y[a])) < 2:
            raise too_few
        said[b] = words(texts[a], y[a])[1](texts[b])
    return Fitted(said, (said > 0.5).astype(np.int64), np.nan, True, 0, {})
