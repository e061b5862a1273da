"""Baselines that read the texts alone: what can be told without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from actprobe.probes import metrics
from actprobe.probes.kinds import BINARY
from actprobe.probes.methods import method
from actprobe.probes.search import Fitted, Task
from actprobe.probes.sizes import CannotFit

_FOLDS = 5

Scorer = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[np.float64]]


@method("text_length", own_search=True)
def text_length(task: Task) -> Fitted:
    """Characters of a text, fewer for class 1 where its training texts are the shorter ones."""
    return _fitted(task, lengths)


@method("tfidf", own_search=True)
def tfidf(task: Task) -> Fitted:
    """The words of the training texts: TF-IDF with a logistic regression.

    With `in_domain: true` in its entry the test texts train, fold by fold (see `in_domain`).
    """
    return _fitted(task, words)


def lengths(train: NDArray[Any], y: NDArray[Any], test: NDArray[Any]) -> NDArray[np.float64]:
    """For each test text a number in (0, 1) that grows with its characters, or falls with them."""
    of_train, of_test = (np.array([len(text) for text in texts], float) for texts in (train, test))
    z = (of_test - of_train.mean()) / (of_train.std() or 1.0)
    turned = -z if metrics.main(BINARY, y, of_train) < 0.5 else z
    return np.asarray(0.5 + 0.5 * turned / (1 + np.abs(turned)), np.float64)


def words(train: NDArray[Any], y: NDArray[Any], test: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of class 1 [m]. Raises CannotFit where the training texts hold no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(sublinear_tf=True)
    try:
        x = vectors.fit_transform(train)
    except ValueError as e:  # an empty vocabulary
        raise CannotFit("the training texts hold no words of two letters") from e
    model = LogisticRegression(C=10, max_iter=1000).fit(x, y)
    return np.asarray(expit(model.decision_function(vectors.transform(test))), np.float64)


def _fitted(task: Task, score: Scorer) -> Fitted:
    x, y = task.X_train, task.y_train
    said = score(x, y, task.X_test)
    validated = [
        metrics.main(task.kind, y[b], score(x[a], y[a], x[b]))
        for a, b in task.folds
        if not task.one_sided(y[a])
    ]
    val_score = float(np.mean(validated)) if validated else np.nan
    return Fitted(said, (said > 0.5).astype(np.int64), val_score, True, 0, {})


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
        said[b] = words(texts[a], y[a], texts[b])
    return Fitted(said, (said > 0.5).astype(np.int64), np.nan, True, 0, {})
