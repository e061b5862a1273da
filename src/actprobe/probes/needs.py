"""What a protocol needs of a dataset, checked against what the header of its texts says.

Light to import, for the plan: a dataset of which no fit could have a number is told before a model
reads it, with the reason that its rows would have had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe.probes import protocol as protocols
from actprobe.probes import sizes
from actprobe.probes.kinds import BINARY, kind_of
from actprobe.probes.methods import fits_kind
from actprobe.probes.sizes import CannotFit, Condition

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Requirement:
    """The fits of one method in one setting of a protocol.

    recipe: `protocol.recipe` of the two; conditions: of the setting.
    """

    protocol: str
    setting: str
    method: str
    recipe: Mapping[str, Any]
    conditions: tuple[Condition, ...]

    @property
    def most(self) -> int:
        """Rows of a dataset that are used at most."""
        return self.recipe["setting"].get("rows", self.recipe["rows"]["most"])


def requirements(
    protocol: str, settings: Iterable[str], methods: Iterable[str]
) -> tuple[Requirement, ...]:
    """What these settings and methods of a protocol (its name or file) need."""
    loaded = protocols.load(protocol)
    return tuple(
        Requirement(
            loaded["name"],
            setting,
            method,
            recipe := protocols.recipe(loaded, setting, method),
            tuple(sizes.conditions(recipe["setting"])),
        )
        for setting in settings
        for method in methods
    )


def unfit(needed: Sequence[Requirement], facts: Facts) -> str | None:
    """Why no fit of these can have a number for a dataset; None where one may.

    facts: what the header of its texts says: `classes` and `counts`; where they are known `n`, `texts`,
    `least`, `groups`, `pairs` and `splits` (see `texts.facts`); `test`, the facts of the test set of a
    setting that has its own. What is not known is taken for good: a reason is always true.
    """
    first = None
    for r in needed:
        for condition in r.conditions:
            try:
                _check(r, condition, facts)
            except CannotFit as e:
                first = first or f"{e} ({r.protocol}, {r.setting}{_of(facts)})"
            else:
                return None
    return first


def binary_only(recipe: Mapping[str, Any]) -> str | None:
    """What of a recipe is about two classes alone; None where it takes every label kind."""
    if recipe["split"].get("groups") == "ignore":
        return "the split draws so many rows"
    if protocols.tests_elsewhere(recipe):
        return "directions are"
    vary = recipe["setting"].get("vary")
    return {"ratio": "ratios are", "noise": "flipped labels are"}.get(vary or "")


def remarks(needed: Sequence[Requirement], facts: Facts) -> list[str]:
    """What the results will not show at first sight: rows, groups and splits that are not used."""
    labelled = sum(facts.get("counts") or ())
    found = []
    for r in needed:
        if labelled > r.most:
            how = "drawn by the seed" if r.recipe["rows"]["kept"] == "drawn" else "the first ones"
            found.append(f"{r.protocol} uses {r.most:,} of {labelled:,} labelled rows, {how}")
        if r.recipe["split"].get("groups") == "ignore":
            for what in ("groups", "pairs"):
                number = (facts.get(what) or {}).get("number", 0)
                if number > 1:
                    found.append(f"{r.protocol} parts its {number:,} {what} between train and test")
            if facts.get("splits"):
                found.append(f"{r.protocol} does not look at its own split")
    return list(dict.fromkeys(found))


def _of(facts: Facts) -> str:
    """The classes and their rows in words, of few classes."""
    rows = list(zip(facts.get("classes") or (), facts.get("counts") or (), strict=False))
    return "; " + ", ".join(f"{c!r}: {n} rows" for c, n in rows) if 0 < len(rows) < 6 else ""


def _check(r: Requirement, condition: Condition, facts: Facts) -> None:
    """Raise CannotFit where this condition cannot have a number."""
    if (kind := kind_of(facts)) != BINARY:
        _check_other_kind(r, kind, facts)
        return
    negatives, positives = _classes(facts)
    if protocols.tests_elsewhere(r.recipe):
        if not min(negatives, positives):
            raise CannotFit(f"all {negatives + positives} labelled rows are of one class")
        if "test" in facts:
            _check_test_set(facts["test"], r.recipe["split"])
        return
    rows = min(negatives + positives, r.most)
    split, setting = r.recipe["split"], r.recipe["setting"]
    # Of more rows than are used it is not known which: each class may be all of them.
    positives, negatives = min(positives, rows), min(negatives, rows)
    if split["groups"] == "ignore":
        _check_drawn(rows, positives, negatives, condition, setting, split)
    else:
        _check_disjoint(positives, negatives, condition, setting, split, facts)
    if "test_set" in setting and "test" in facts:
        _check_test_set(facts["test"], split)


def _check_other_kind(r: Requirement, kind: str, facts: Facts) -> None:
    """Of several classes, or of values."""
    if binary_only(r.recipe):
        raise CannotFit(two_classes(facts.get("classes") or ()))
    if not fits_kind(r.recipe["method"], kind):
        raise CannotFit(f"{r.method} does not fit {kind} labels")
    _check_parts(facts)
    if facts.get("splits") or "test_set" in r.recipe["setting"]:
        return
    split = r.recipe["split"]
    rows = facts.get("counts") or [facts.get("n", 0)]
    sizes.check_each([int(split["test_fraction"] * n) for n in rows], split["least_test"])


def _classes(facts: Facts) -> list[int]:
    counts, names = facts.get("counts") or [], list(facts.get("classes") or [])
    if not names:
        raise CannotFit("no labels; probes need them")
    if len(names) != 2:
        raise CannotFit(two_classes(names))
    return list(counts)


def two_classes(names: Sequence[str]) -> str:
    """What to do where two classes are needed; names: of the classes, none of values."""
    if not names:
        return "needs two classes, found values"
    shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
    more = ", or write `one_vs_rest: true`" if len(names) > 2 else ""
    return (
        f"needs two classes, found {len(names)}: {shown}; name the one that becomes class 1 with "
        f"`positive`{more}"
    )


def _check_drawn(
    rows: int,
    positives: int,
    negatives: int,
    condition: Condition,
    setting: Mapping[str, Any],
    split: Mapping[str, Any],
) -> None:
    n_train, n_test = sizes.sizes(rows, positives, negatives, condition, setting, split)
    wanted = sizes.drawn(n_train, n_test, condition.ratio)
    sizes.check_drawn(positives, negatives, wanted)


def _check_disjoint(
    positives: int,
    negatives: int,
    condition: Condition,
    setting: Mapping[str, Any],
    split: Mapping[str, Any],
    facts: Facts,
) -> None:
    """No side has more rows of a class than its share, however groups fall."""
    if "test_set" in setting:
        sizes.disjoint_train(
            sizes.usable(positives, negatives, condition, setting), condition, setting, split
        )
        return
    _check_parts(facts)
    given = facts.get("splits")
    if given:
        rows = [given.get(side, 0) for side in ("train", "test")]
        sides = [(min(positives, n), min(negatives, n)) for n in rows]
    else:
        share = split["test_fraction"]
        rows = [positives + negatives] * 2
        sides = [(positives, negatives), (int(share * positives), int(share * negatives))]
    usable = [
        min(n, sizes.usable(*side, condition, setting)) for n, side in zip(rows, sides, strict=True)
    ]
    sizes.disjoint_train(usable[0], condition, setting, split)
    sizes.check_tested(usable[1], condition.ratio, split["least_test"])


def _check_parts(facts: Facts) -> None:
    """Raise CannotFit where all rows, or all of a class, must be on one side."""
    if facts.get("texts") == 1:
        raise CannotFit("all rows have the same text, which cannot train and test")
    least = facts.get("least")
    if least and least["texts"] == 1:
        rows = "one row" if least["rows"] == 1 else f"{least['rows']} rows of one text"
        raise CannotFit(f"class {least['class']!r} has {rows}, which cannot train and test")
    for what in ("groups", "pairs"):
        joined = facts.get(what)
        if joined and joined["largest"] == sum(facts["counts"]) == facts.get("n"):
            raise CannotFit(f"all rows are of one {what[:-1]}, which cannot train and test")


def _check_test_set(facts: Facts, split: Mapping[str, Any]) -> None:
    negatives, positives = _classes(facts)
    if not min(negatives, positives):
        raise CannotFit("one class in the test set")
    sizes.check_classes(positives, negatives, split.get("least_test", 1))
