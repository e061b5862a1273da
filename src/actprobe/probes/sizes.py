"""How many rows train and test in each condition of a setting: whole numbers alone, light to import.

The jobs deal rows by these rules, and the plan tells by the same ones what cannot be dealt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


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


def sizes(
    n: int,
    positives: int,
    negatives: int,
    condition: Condition,
    setting: Mapping[str, Any],
    split: Mapping[str, Any],
) -> tuple[int, int]:
    """Train and test rows of a condition where rows are drawn one by one.

    n, positives, negatives: rows that may be used, and those of each class. All ratios of a setting
    have one size: what the two ends of its `range` allow, whichever ratios are listed. Raises
    CannotFit for too few rows.
    """
    at_least, spare = split["n_test"], setting.get("spare", split["spare"])
    if "test_set" in setting:
        return setting["n_train"], 0
    if setting.get("vary") == "ratio":
        low, high = setting["range"]
        total = int(min(negatives / (1 - low), positives / high))
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


def drawn(n_train: int, n_test: int, ratio: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """(train, test) rows of class 1 and of class 0 with `ratio` positives, rounded up, in both."""
    train, test = math.ceil(ratio * n_train), math.ceil(ratio * n_test)
    return (train, test), (n_train - train, n_test - test)


def check_drawn(
    positives: int, negatives: int, wanted: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Raise CannotFit where a class has fewer rows than `drawn` takes."""
    for rows, (a, b), word in zip(
        (positives, negatives), wanted, ("positive", "negative"), strict=True
    ):
        if rows < a + b:
            raise CannotFit(f"needs {a} + {b} {word} rows (train + test), found {rows}")


def largest(positives: int, negatives: int, ratio: float) -> int:
    """The largest number of rows that has `ratio` positives (rounded up)."""
    n = int(min(positives / ratio, negatives / (1 - ratio)))
    while n and (math.ceil(ratio * n) > positives or n - math.ceil(ratio * n) > negatives):
        n -= 1
    return n


def usable(positives: int, negatives: int, condition: Condition, setting: Mapping[str, Any]) -> int:
    """Rows of one side of a group-disjoint split: as many at every ratio of the setting's range."""
    ratios = setting["range"] if setting.get("vary") == "ratio" else [condition.ratio]
    return min(largest(positives, negatives, r) for r in ratios)


def disjoint_train(most: int, condition: Condition, setting: Mapping[str, Any], split: Any) -> int:
    """Train rows of a group-disjoint condition whose train side has `most` usable rows.

    Raises CannotFit where these are too few.
    """
    n_train = min(most, condition.n_train or split["n_train"])
    wanted = condition.n_train
    if wanted is not None and n_train < wanted and "test_set" not in setting:
        raise CannotFit(f"needs {wanted} train rows, {n_train} are usable")
    if n_train < 2:
        raise CannotFit(f"{most} train rows are usable, at least 2 needed")
    return n_train


def check_tested(n_test: int, ratio: float, least: int) -> None:
    """Raise CannotFit where the rarer class has fewer than `least` of n_test rows."""
    positives = math.ceil(ratio * n_test)
    check_classes(positives, n_test - positives, least)


def check_classes(positives: int, negatives: int, least: int) -> None:
    """Raise CannotFit where a class has fewer than `least` test rows."""
    if min(positives, negatives) < least:
        raise CannotFit(
            f"{positives} positive and {negatives} negative test rows are usable, at least "
            f"{least} of each class needed"
        )


def check_each(rows: Iterable[int], least: int) -> None:
    """Raise CannotFit where one of the classes, or all values, have fewer than `least` test rows."""
    fewest = min(rows)
    if fewest < least:
        raise CannotFit(f"a class has {fewest} test rows, at least {least} of each needed")
