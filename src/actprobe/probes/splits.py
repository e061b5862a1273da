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

from actprobe.probes import sizes
from actprobe.probes.kinds import BINARY, CONTINUOUS
from actprobe.probes.sizes import CannotFit, Condition

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows that train, validate and test. validation: None where train rows choose hyperparameters."""

    train: Rows
    validation: Rows | None
    test: Rows

    @property
    def fitted(self) -> Rows:
        """All that a fit has looked at: train rows, then validation rows."""
        if self.validation is None:
            return self.train
        return np.concatenate([self.train, self.validation])


def draw(y: NDArray[Any], n_train: int, n_test: int, ratio: float, seed: int) -> tuple[Rows, Rows]:
    """Train and test rows (int64, in drawn order) with `ratio` positives in both.

    y: 0/1 labels [n]. Positives are rounded up. Raises CannotFit when a class is too small.
    """
    rng = np.random.RandomState(seed)
    classes = [np.flatnonzero(y == 1), np.flatnonzero(y == 0)]
    wanted = sizes.drawn(n_train, n_test, ratio)
    sizes.check_drawn(len(classes[0]), len(classes[1]), wanted)
    train = [rng.choice(c, a, replace=False) for c, (a, _) in zip(classes, wanted, strict=True)]
    rest = [np.setdiff1d(c, t) for c, t in zip(classes, train, strict=True)]
    test = [rng.choice(c, b, replace=False) for c, (_, b) in zip(rest, wanted, strict=True)]
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


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


def components(*names: NDArray[Any] | Sequence[str | None]) -> Rows:
    """Component of each row [n]: rows with the same text, group or pair are joined.

    names: for each kind the name of every row; a row named None has none of this kind.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(names[0])
    rows, columns, n_names = [], [], 0
    for kind in names:
        named = np.flatnonzero([name is not None for name in kind])
        found, at = np.unique([str(kind[i]) for i in named.tolist()], return_inverse=True)
        rows.append(named)
        columns.append(n + n_names + at)
        n_names += len(found)
    at_row, at_name = np.concatenate(rows), np.concatenate(columns)
    links = coo_array((np.ones(len(at_row)), (at_row, at_name)), shape=(n + n_names,) * 2)
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
        [np.bincount(component[y == c], minlength=component.max() + 1) for c in np.unique(y)]
    )
    allowed, taken = test_fraction * counts.sum(axis=1), np.zeros(len(counts))
    in_test = np.zeros(counts.shape[1], bool)
    for c in rng.permutation(counts.shape[1]):
        if (taken + counts[:, c] <= allowed).all():
            taken += counts[:, c]
            in_test[c] = True
    rows = rng.permutation(len(y))
    return rows[~in_test[component[rows]]], rows[in_test[component[rows]]]


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
    kind: str = BINARY,
) -> tuple[Rows, Rows]:
    """Train and test rows that share no component, for any setting.

    Test rows are the same for all conditions but ratios; train rows of a smaller condition are a
    subset. Of two classes both sides have `condition.ratio` positives and, over ratios, one size; of
    several they are as frequent as they come, and values are dealt as one class. Raises CannotFit when
    a side has too few rows of a class.
    """
    elsewhere = "test_set" in setting
    dealt = np.zeros(len(y), np.int64) if kind == CONTINUOUS else y
    if elsewhere:
        train, test = np.random.RandomState(seed).permutation(len(y)), np.empty(0, np.int64)
    else:
        train, test = sides(dealt, component, split["test_fraction"], seed, given)
    if kind != BINARY:
        if not elsewhere:
            tested = np.bincount(dealt[test], minlength=int(dealt.max()) + 1)
            sizes.check_each(tested, split["least_test"])
        return train[: sizes.disjoint_train(len(train), condition, setting, split)], test
    usable = [
        sizes.usable(int(np.sum(y[side] == 1)), int(np.sum(y[side] == 0)), condition, setting)
        for side in (train, test)
    ]
    n_train = sizes.disjoint_train(usable[0], condition, setting, split)
    if not elsewhere:
        sizes.check_tested(usable[1], condition.ratio, split["least_test"])
    return take(train, y, n_train, condition.ratio), take(test, y, usable[1], condition.ratio)
