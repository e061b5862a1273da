"""The arithmetic of kept models: from rows to decisions, and from decisions to scores.

A scorer is a function of a model's arrays and rows, registered by name. Its decisions become scores by
the `link` of the model. All but those of neighbours and boosted trees need numpy and scipy alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from actprobe.base.errors import ConfigError

Arrays = Mapping[str, NDArray[Any]]
How = Mapping[str, Any]
Vector = NDArray[np.float64]
Scoring = Callable[[Arrays, How, Any], Vector]

_SCORERS: dict[str, Scoring] = {}
_TOKENS = 1 << 21  # numbers of tokens that are worked on at a time, in float64
_WORD = re.compile(r"(?u)\b\w\w+\b")  # what scikit-learn's TfidfVectorizer calls a word


def scorer(name: str) -> Callable[[Scoring], Scoring]:
    """Register a function `(arrays, how, rows) -> decisions`, float64 [n] or [n, classes].

    Raises ConfigError for a name that is taken by another module.
    """

    def register(found: Scoring) -> Scoring:
        known = _SCORERS.setdefault(name, found)
        if known.__module__ != found.__module__:
            raise ConfigError(f"scorer {name!r} is taken; call it differently")
        _SCORERS[name] = found
        return found

    return register


def scoring(name: str) -> Scoring:
    """The scorer of this name. Raises KeyError where there is none."""
    return _SCORERS[name]


def linked(decisions: Vector, link: str) -> Vector:
    """Decisions as scores. logistic, softmax: probabilities; shares: logistic, of sum 1 over the
    classes; soft_sign: ½ + ½ z / (1 + |z|); none: as they are."""
    match link:
        case "none":
            return decisions
        case "logistic":
            return np.asarray(expit(decisions))
        case "softmax":
            return np.asarray(softmax(decisions, axis=1))
        case "shares":
            each = expit(decisions)
            total = each.sum(axis=1, keepdims=True)
            return np.asarray(np.divide(each, total, out=each, where=total != 0))
        case "soft_sign":
            return np.asarray(0.5 + 0.5 * decisions / (1 + np.abs(decisions)))
    raise KeyError(link)


@scorer("linear")
def linear(arrays: Arrays, how: How, rows: Any) -> Vector:
    """x·coef + intercept; coef [d] or [classes, d]."""
    return np.asarray(rows, np.float64) @ arrays["coef"].T + arrays["intercept"]


@scorer("positions")
def positions(arrays: Arrays, how: How, rows: Any) -> Vector:
    """Linear in the tokens of a row (`tokens.Ragged`), with other weights at each position: coef
    [classes, positions, d] (or [positions, d]), offset [classes, positions]. A row that ends before a
    position gets nothing from it."""
    coef, offset = arrays["coef"], arrays["offset"]
    n = rows.shape[0]
    found = np.zeros((n, *coef.shape[:-2])) + arrays["intercept"]
    for position in range(coef.shape[-2]):
        long = np.flatnonzero(rows.lengths > position)
        x = rows.x[rows.offsets[long] + position].astype(np.float64)
        found[long] += x @ coef[..., position, :].T + offset[..., position]
    return found


@scorer("layers")
def layers(arrays: Arrays, how: How, rows: Any) -> Vector:
    """A multi-layer perceptron: weight_i [out, in], bias_i [out]; how: `activation`."""
    x, last = np.asarray(rows, np.float64), how["layers"] - 1
    for i in range(last + 1):
        x = x @ arrays[f"weight_{i}"].T + arrays[f"bias_{i}"]
        if i < last:
            x = _activated(x, how["activation"])
    return x[:, 0] if x.shape[1] == 1 else x


def _activated(x: Vector, name: str) -> Vector:
    match name:
        case "relu":
            return np.maximum(x, 0)
        case "tanh":
            return np.tanh(x)
        case "logistic":
            return np.asarray(expit(x))
        case "identity":
            return x
    raise KeyError(name)


@scorer("attention")
def attention(arrays: Arrays, how: How, rows: Any) -> Vector:
    """Σ_t w_t (x_t·value) + intercept with w = softmax(x·query) over a row's own tokens; query and
    value are [d], rows `tokens.Ragged`, each with a token at least."""
    both = np.column_stack([arrays["query"], arrays["value"]])
    step = max(1, _TOKENS // len(both))
    parts = [rows.x[i : i + step].astype(np.float64) @ both for i in range(0, len(rows.x), step)]
    asked, said = np.concatenate([*parts, np.zeros((0, 2))]).T
    starts = rows.offsets[:-1]
    highest = np.maximum.reduceat(asked, starts)
    weight = np.exp(asked - np.repeat(highest, rows.lengths))
    total = np.add.reduceat(weight, starts)
    return np.asarray(np.add.reduceat(weight * said, starts) / total + arrays["intercept"])


@scorer("tree")
def tree(arrays: Arrays, how: How, rows: Any) -> Vector:
    """A decision tree: left, right, feature [nodes] (left is -1 in a leaf), threshold [nodes], value
    [nodes] or [nodes, classes]. It compares in float32, as scikit-learn does."""
    x = np.asarray(rows, np.float32)
    at = np.zeros(len(x), np.int64)
    while (inner := np.flatnonzero(arrays["left"][at] >= 0)).size:
        node = at[inner]
        goes_left = x[inner, arrays["feature"][node]] <= arrays["threshold"][node]
        at[inner] = np.where(goes_left, arrays["left"][node], arrays["right"][node])
    return np.asarray(arrays["value"][at], np.float64)


@scorer("boosted")
def boosted(arrays: Arrays, how: How, rows: Any) -> Vector:
    """Boosted trees, as UBJSON of XGBoost: model uint8 [bytes]."""
    from xgboost import Booster, DMatrix

    model = Booster({"nthread": 1})
    model.load_model(bytearray(arrays["model"].tobytes()))
    return np.asarray(model.predict(DMatrix(np.asarray(rows, np.float64), nthread=1)), np.float64)


@scorer("neighbours")
def neighbours(arrays: Arrays, how: How, rows: Any) -> Vector:
    """Shares of the classes among the nearest train rows, or the mean of their values: train [n, d]
    behind the steps, y [n]."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    values = how["kind"] == "continuous"
    kind = KNeighborsRegressor if values else KNeighborsClassifier
    model = kind(how["neighbours"]).fit(arrays["train"], arrays["y"])
    if values:
        return np.asarray(model.predict(rows), np.float64)
    found = np.asarray(model.predict_proba(rows), np.float64)
    return found[:, 1] if how["kind"] == "binary" else found


@scorer("lengths")
def lengths(arrays: Arrays, how: How, rows: Any) -> Vector:
    """Characters of a text times coef, plus intercept."""
    characters = np.array([len(text) for text in rows], np.float64)
    return characters * arrays["coef"] + arrays["intercept"]


@scorer("words")
def words(arrays: Arrays, how: How, rows: Any) -> Vector:
    """TF-IDF with sublinear counts and unit norm, times coef [words]; vocabulary: JSON, a list of words
    in the order of coef and idf."""
    known = json.loads(arrays["vocabulary"].tobytes())
    place = {word: i for i, word in enumerate(known)}
    found = np.zeros(len(rows))
    for n, text in enumerate(rows):
        counts = Counter(w for w in _WORD.findall(text.lower()) if w in place)
        at = np.array([place[w] for w in counts], np.int64)
        x = (1 + np.log(np.array(list(counts.values()), np.float64))) * arrays["idf"][at]
        found[n] = x @ arrays["coef"][at] / (np.linalg.norm(x) or 1.0)
    return found + arrays["intercept"]
