"""Train, validation and test rows by shares: stratified, by whole groups, random, or given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from actprobe.lora.classes import enough, folds
from actprobe.probes.sizes import CannotFit
from actprobe.probes.splits import Rows, Split

_SIDES = (["train"], ["validation", "val", "valid", "dev"], ["test"])


def draw(
    y: NDArray[np.int64],
    group: NDArray[Any] | None,
    given: NDArray[Any] | None,
    rule: Mapping[str, Any],
    seed: int,
) -> Split:
    """Rows that train, validate and test.

    y: classes [n]; group: rows of one group stay on one side (stratified as far as they let);
    given: "train", "validation" (or "val", "valid", "dev") and "test" per row, which then decides.
    rule: `split` of a protocol; its `seed` per_run takes `seed`, a number fixes the split for all
    runs. Raises CannotFit when a class has too few rows, or `given` another value.
    """
    seed = seed if rule["seed"] == "per_run" else rule["seed"]
    rows = np.arange(len(y))
    if given is not None:
        return Split(*_given(rows, y, group, given, rule, seed))
    train, test = _cut(rows, y, group, rule["test"], rule["kind"], seed)
    share = rule["validation"] / (1 - rule["test"])
    train, validation = _cut(train, y, group, share, rule["kind"], seed)
    return Split(train, validation, test)


def _given(
    rows: Rows, y: NDArray, group: NDArray | None, given: NDArray, rule: Mapping, seed: int
) -> tuple[Rows, Rows, Rows]:
    sides = [rows[np.isin(given, names)] for names in _SIDES]
    if len(sides[0]) == 0 or len(sides[2]) == 0:
        found = ", ".join(sorted({str(g) for g in given}))
        raise CannotFit(f"the split column needs the values train and test, it has: {found}")
    if others := sorted({str(g) for g in given} - {n for names in _SIDES for n in names}):
        raise CannotFit(
            f"the split column has the values {', '.join(map(repr, others))}; expected train, "
            "validation and test (a row without a label is left out)"
        )
    if len(sides[1]) == 0:
        sides[0], sides[1] = _cut(sides[0], y, group, rule["validation"], rule["kind"], seed)
    return sides[0], sides[1], sides[2]


def _cut(
    rows: Rows, y: NDArray, group: NDArray | None, share: float, kind: str, seed: int
) -> tuple[Rows, Rows]:
    """Rows that stay and rows that go, a `share` of them."""
    if kind == "random":
        left, right = train_test_split(rows, test_size=share, random_state=seed)
        return left, right
    classes, counts = np.unique(y[rows], return_counts=True)
    if counts.min() < 2 or not enough(len(rows), len(classes), share):
        raise CannotFit(
            f"{len(rows)} rows in {len(classes)} classes, the smallest with {counts.min()}, are too "
            f"few to put {share:.0%} of every class aside"
        )
    if group is None:
        left, right = train_test_split(rows, test_size=share, random_state=seed, stratify=y[rows])
        return left, right
    parts = folds(share)
    if len(np.unique(group[rows])) < parts:
        raise CannotFit(
            f"{len(np.unique(group[rows]))} groups are too few for a share of {share:.0%}"
        )
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    left, right = next(splitter.split(rows, y[rows], group[rows]))
    return rows[left], rows[right]
