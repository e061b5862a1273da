"""Which rows train and which rows test: conditions, sizes and the two split rules.

`draw` is the rule of the sae-probes package: every row for itself, numpy's legacy generator, whose
stream is frozen. `sides` and `take` are the rule of group-disjoint protocols: whole groups go to
one side, and every condition takes rows from the two fixed sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class CannotFit(Exception):
    """A condition has no number for this dataset; the message is the `reason` of its row."""


@dataclass(frozen=True)
class Condition:
    """One point of a setting. name: its value as text ("" for normal); ratio: share of positives
    in train and test; noise: share of flipped train labels; n_train None: as many as allowed."""

    name: str = ""
    n_train: int | None = None
    ratio: float = 0.5
    noise: float = 0.0


def conditions(setting: Mapping[str, Any], test_set: str = "") -> list[Condition]:
    """The conditions of a protocol's setting, in its order; `test_set` names a given one."""
    match setting.get("vary"):
        case "n_train":
            return [Condition(str(v), n_train=v) for v in setting["values"]]
        case "ratio":
            return [Condition(f"{v:g}", ratio=v) for v in setting["values"]]
        case "noise":
            return [Condition(f"{v:g}", noise=v) for v in setting["values"]]
    return [Condition(test_set, setting.get("n_train"))]


def draw(y: NDArray[Any], n_train: int, n_test: int, ratio: float, seed: int) -> tuple[Rows, Rows]:
    """Train and test rows (int64, in drawn order) with `ratio` positives in both.

    y: 0/1 labels [n]. Positives are rounded up. Raises CannotFit when a class is too small.
    """
    rng = np.random.RandomState(seed)
    classes = [np.flatnonzero(y == 1), np.flatnonzero(y == 0)]
    train_pos, test_pos = math.ceil(ratio * n_train), math.ceil(ratio * n_test)
    wanted = [(train_pos, test_pos), (n_train - train_pos, n_test - test_pos)]
    for rows, (a, b), word in zip(classes, wanted, ("positive", "negative"), strict=True):
        if len(rows) < a + b:
            raise CannotFit(f"needs {a} + {b} {word} rows (train + test), found {len(rows)}")
    train = [rng.choice(c, a, replace=False) for c, (a, _) in zip(classes, wanted, strict=True)]
    rest = [np.setdiff1d(c, t) for c, t in zip(classes, train, strict=True)]
    test = [rng.choice(c, b, replace=False) for c, (_, b) in zip(rest, wanted, strict=True)]
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def sizes(
    y: NDArray[Any], condition: Condition, setting: Mapping[str, Any], split: Mapping[str, Any]
) -> tuple[int, int]:
    """Numbers of train and test rows for `draw`. Raises CannotFit for too small a dataset."""
    n, at_least, spare = len(y), split["n_test"], setting.get("spare", split["spare"])
    if "test_set" in setting:
        return setting["n_train"], 0
    if setting.get("vary") == "ratio":
        positives = int(np.sum(y == 1))
        low, high = min(setting["values"]), max(setting["values"])
        total = int(min((n - positives) / (1 - low), positives / high))
        n_train = min(total - at_least, split["n_train"])
        n_test = max(at_least, total - n_train - spare)
    else:
        n_train = condition.n_train or min(n - at_least, split["n_train"])
        total, n_test = n, n - n_train - spare
    if n_train < 2 or n_train > total - at_least:
        raise CannotFit(
            f"{max(n_train, 2)} train and {at_least} test rows are needed, {total} are usable"
        )
    return n_train, n_test


def first_of_each(y: NDArray[Any], n_train: int, seed: int) -> tuple[Rows, Rows]:
    """The first n_train/2 rows of each class in a seeded permutation, and no test rows."""
    half = n_train // 2
    classes = [np.flatnonzero(y == c)[:half] for c in (1, 0)]
    if any(len(c) < half for c in classes):
        raise CannotFit(f"needs {half} rows of each class, found {min(map(len, classes))}")
    rows = np.concatenate(classes)
    return np.random.RandomState(seed).permutation(rows), np.empty(0, np.int64)


def flip(y_train: NDArray[Any], noise: float, seed: int) -> NDArray[Any]:
    """A copy of the labels with int(noise · n) of them flipped; more noise flips a superset."""
    rows = np.random.RandomState(seed).choice(
        len(y_train), int(len(y_train) * noise), replace=False
    )
    flipped = y_train.copy()
    flipped[rows] = 1 - flipped[rows]
    return flipped


def components(digest: Sequence[str], group: Sequence[str | None] | None = None) -> Rows:
    """Component of each row [n]: rows with the same text or the same group are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(digest)
    names = [np.unique(np.asarray(digest, dtype=str), return_inverse=True)[1]]
    if group is not None:
        own = [f"row {i}" if g is None else f"group {g}" for i, g in enumerate(group)]
        names.append(np.unique(own, return_inverse=True)[1])
    offsets = n + np.cumsum([0, *(int(c.max(initial=-1)) + 1 for c in names)])
    columns = np.concatenate([c + o for c, o in zip(names, offsets, strict=False)])
    links = coo_array(
        (np.ones(len(columns)), (np.tile(np.arange(n), len(names)), columns)),
        shape=(offsets[-1], offsets[-1]),
    )
    return connected_components(links, directed=False)[1][:n].astype(np.int64)


def sides(
    y: NDArray[Any],
    component: Rows,
    test_fraction: float,
    seed: int,
    given: NDArray[Any] | None = None,
) -> tuple[Rows, Rows]:
    """Rows that may train and rows that may test, each in random order.

    Components are visited in random order; one goes to the test side if no class gets more than
    `test_fraction` of its rows there, else to the train side: large groups train. With `given`
    ("train"/"test" per row), the dataset's own split decides; other rows are left out, and train
    rows that share a component with a test row too.
    """
    rng = np.random.RandomState(seed)
    if given is not None:
        train, test = (np.flatnonzero(given == side) for side in ("train", "test"))
        train = train[~np.isin(component[train], component[test])]
        return rng.permutation(train), rng.permutation(test)
    _, component = np.unique(component, return_inverse=True)
    counts = np.stack(
        [np.bincount(component[y == c], minlength=component.max() + 1) for c in (0, 1)]
    )
    allowed, taken = test_fraction * counts.sum(axis=1), np.zeros(2)
    in_test = np.zeros(counts.shape[1], bool)
    for c in rng.permutation(counts.shape[1]):
        if (taken + counts[:, c] <= allowed).all():
            taken += counts[:, c]
            in_test[c] = True
    rows = rng.permutation(len(y))
    return rows[~in_test[component[rows]]], rows[in_test[component[rows]]]


def largest(y_side: NDArray[Any], ratio: float) -> int:
    """The largest number of rows of a side that has `ratio` positives (rounded up)."""
    positives = int(np.sum(y_side == 1))
    negatives = len(y_side) - positives
    n = int(min(positives / ratio, negatives / (1 - ratio)))
    while n and (math.ceil(ratio * n) > positives or n - math.ceil(ratio * n) > negatives):
        n -= 1
    return n


def take(side: Rows, y: NDArray[Any], n: int, ratio: float) -> Rows:
    """The first rows of a side with ceil(ratio·n) positives among n, in the side's order.

    Smaller n give subsets of larger ones, so that a learning curve grows its train set.
    """
    positive = y[side] == 1
    n_positive = math.ceil(ratio * n)
    rank = np.where(positive, np.cumsum(positive), np.cumsum(~positive))
    return side[rank <= np.where(positive, n_positive, n - n_positive)]


def disjoint(
    y: NDArray[Any],
    component: Rows,
    given: NDArray[Any] | None,
    condition: Condition,
    setting: Mapping[str, Any],
    split: Mapping[str, Any],
    seed: int,
) -> tuple[Rows, Rows]:
    """Train and test rows that share no component, for any setting.

    Test rows are the same for all conditions but ratios; train rows of a smaller condition are a
    subset. Both sides have `condition.ratio` positives and, over ratios, one size. Raises CannotFit
    when a side has too few rows of a class.
    """
    elsewhere = "test_set" in setting
    if elsewhere:
        train, test = np.random.RandomState(seed).permutation(len(y)), np.empty(0, np.int64)
    else:
        train, test = sides(y, component, split["test_fraction"], seed, given)
    ratios = setting["values"] if setting.get("vary") == "ratio" else [condition.ratio]
    usable = [min(largest(y[side], r) for r in ratios) for side in (train, test)]
    n_train = min(usable[0], condition.n_train or split["n_train"])
    if condition.n_train is not None and n_train < condition.n_train and not elsewhere:
        raise CannotFit(f"needs {condition.n_train} train rows, {n_train} are usable")
    if n_train < 2 or (usable[1] < 2 and not elsewhere):
        raise CannotFit(
            f"{usable[0]} train and {usable[1]} test rows are usable, at least 2 needed"
        )
    return take(train, y, n_train, condition.ratio), take(test, y, usable[1], condition.ratio)
