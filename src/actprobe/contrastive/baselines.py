"""What texts tell without a model: their length, and TF-IDF with a logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actprobe import store
from actprobe.contrastive import data
from actprobe.plan import Target
from actprobe.probes import auc, auc_interval

METHODS = {
    "baseline_length": "number of characters",
    "baseline_tfidf": "words of the training set (TF-IDF, logistic regression)",
    "baseline_tfidf_in_domain": "words of the validation set itself, up to five folds",
}
SCHEMA = pa.schema(
    [
        ("train", pa.string()),
        ("dataset", pa.string()),
        ("method", pa.string()),
        ("n_train", pa.int32()),
        ("n_test", pa.int32()),
        *((c, pa.float64()) for c in ("test_auc", "ci_low", "ci_high")),
    ]
)
_FOLDS = 5


def make(t: Target) -> Path:
    """The baselines of one training and one validation set; returns the sealed part."""
    train = data.load(t.args["train"], t.args["positive"])
    test = data.load(t.args["dataset"], t.args["positive"])
    data.require_tested(test)
    found = {
        "baseline_length": length(train.text, train.y, test.text),
        "baseline_tfidf": tfidf(train.text, train.y, test.text),
        "baseline_tfidf_in_domain": tfidf_in_domain(test.text, test.y, test.group),
    }
    rows = []
    for method, scores in found.items():
        low, high = (None, None) if scores is None else auc_interval(test.y, scores, test.group)
        rows.append(
            {
                "train": train.dataset,
                "dataset": test.dataset,
                "method": method,
                "n_train": len(train),
                "n_test": len(test),
                "test_auc": None if scores is None else auc(test.y, scores),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return store.write_table(t.path, pa.Table.from_pylist(rows, SCHEMA), t.spec)


def length(train: NDArray, y: NDArray, test: NDArray) -> NDArray[np.float64]:
    """Characters of each test text, negative where positive training texts are the shorter ones."""
    sizes = [np.array([len(text) for text in texts], np.float64) for texts in (train, test)]
    return -sizes[1] if auc(y, sizes[0]) < 0.5 else sizes[1]


def tfidf(train: NDArray, y: NDArray, test: NDArray) -> NDArray[np.float64] | None:
    """Decision values [n] of a classifier of training texts; None when they hold no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(sublinear_tf=True)
    try:
        x = words.fit_transform(train)
    except ValueError:  # an empty vocabulary
        return None
    model = LogisticRegression(C=10, max_iter=1000).fit(x, y)
    return model.decision_function(words.transform(test))


def tfidf_in_domain(texts: NDArray, y: NDArray, groups: NDArray) -> NDArray[np.float64] | None:
    """The same with the validation texts as training texts, each scored by a fold without it.

    The most that words can tell here, and so no fair rival of a probe trained elsewhere. None when
    there are too few rows or groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, int(np.bincount(y).min()), len(set(groups)))
    if folds < 2:
        return None
    scores = np.empty(len(y))
    cv = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for a, b in cv.split(texts, y, groups):
        part = tfidf(texts[a], y[a], texts[b]) if len(set(y[a])) == 2 else None
        if part is None:
            return None
        scores[b] = part
    return scores


def tombstone(path: str, spec: Mapping[str, Any], reason: str) -> Path:
    """Write the reason why there are no baselines."""
    return store.write_table(path, SCHEMA.empty_table(), spec, bad=reason)
