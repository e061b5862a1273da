"""Whether the classes of a label column are large enough to be split; light, no array library."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

FEWEST = 2  # LoRAs, or groups, of a class: one to train and one to test
_SHOWN = 10

Row = Mapping[str, str]  # "label", and "group" and "split" where they are read
Rule = Mapping[str, Any]  # `split` of a protocol


def sizes(rows: Sequence[Row]) -> dict[str, int]:
    """LoRAs of each class; rows without a label are nobody's."""
    return dict(Counter(r["label"] for r in rows if r["label"]))


def smaller(rows: Sequence[Row], least: int | None) -> dict[str, int]:
    """The classes with fewer LoRAs than `least`, and how many they have; none without `least`."""
    return {c: n for c, n in sizes(rows).items() if n < (least or 0)}


def enough(n: int, classes: int, share: float) -> bool:
    """True when a share of n rows, and the rest, can each hold a row of every class."""
    return n * share >= classes and n * (1 - share) >= classes


def folds(share: float) -> int:
    """Into how many parts groups are cut, of which one is put aside."""
    return max(2, round(1 / share))


def problem(rows: Sequence[Row], least: int | None, rule: Rule) -> str:
    """What keeps a class from being trained and tested, in words; empty when nothing is known to.

    rows: the LoRAs that have a label and can be used; least: `min_per_class`, below which classes
    are left out; rule: `split` of the protocol. With a `split` column a class needs a training row,
    or two where no row validates; without one, and where splits are stratified, two LoRAs (two groups,
    where there are groups).
    """
    left_out = smaller(rows, least)
    kept = _kept(rows, least)
    classes = sizes(kept)
    if len(classes) < 2:
        names = (
            f"all LoRAs have the label {next(iter(classes))!r}" if classes else "no LoRA is left"
        )
        dropped = f" (min_per_class: {least} leaves out {_listed(left_out)})" if left_out else ""
        return f"{names}; two classes are needed{dropped}"
    if "split" in kept[0]:
        return _by_column(kept)
    if rule["kind"] == "random":
        return ""
    if few := {c: n for c, n in classes.items() if n < FEWEST}:
        return (
            f"too few LoRAs of {_listed(few)}: a class needs {FEWEST}, to train and to test; "
            f"`min_per_class: {FEWEST}` (or more) leaves such classes out"
        )
    if few := {c: n for c, n in _groups(kept).items() if n < FEWEST}:
        return (
            f"too few groups of {_listed(few)}: a class needs {FEWEST}, one to train and one to test; "
            "empty labels leave LoRAs out"
        )
    return ""


def doubt(rows: Sequence[Row], least: int | None, rule: Rule) -> str:
    """What may leave some runs, or all, without a number although `problem` finds nothing."""
    kept = _kept(rows, least)
    n, classes = len(kept), sizes(kept)
    test, validation = rule["test"], rule["validation"] / (1 - rule["test"])
    if not kept or "split" in kept[0]:
        return ""
    second = n - math.ceil(n * test)
    cut = enough(n, len(classes), test) and enough(second, len(classes), validation)
    if rule["kind"] != "random" and not cut:
        return (
            f"{n} LoRAs of {len(classes)} classes are too few to put {test:.0%} and "
            f"{rule['validation']:.0%} of them aside with some of every class"
        )
    if few := {c: n for c, n in classes.items() if n <= FEWEST}:
        return (
            f"there are so few LoRAs of {_listed(few)} that not every split can train all classes"
        )
    if rule["kind"] == "random":
        return ""
    total = len({r.get("group") or f"\0{i}" for i, r in enumerate(kept)})
    need = max(folds(test), 1 + folds(validation))
    if "group" in kept[0] and total < need:
        return f"{total} groups are too few to be cut into {need}"
    return ""


def _kept(rows: Sequence[Row], least: int | None) -> list[Row]:
    left_out = smaller(rows, least).keys() | {""}
    return [r for r in rows if r["label"] not in left_out]


def _groups(rows: Sequence[Row]) -> dict[str, int]:
    """Groups of each class; a LoRA without a group is one of its own."""
    found: dict[str, set[str]] = defaultdict(set)
    for n, r in enumerate(rows):
        found[r["label"]].add(r.get("group") or f"\0{n}")
    return {c: len(g) for c, g in found.items()}


def _by_column(rows: Sequence[Row]) -> str:
    """`problem` where a column gives the split."""
    sides = Counter(r["split"] for r in rows)
    if "train" not in sides or sides.keys() == {"train"}:
        return ""  # the column itself is wrong, which `splits` says
    need = 1 if sides.keys() - {"train", "test"} else 2  # else validation is cut from training
    trained = Counter(r["label"] for r in rows if r["split"] == "train")
    if few := {c: trained[c] for c in sizes(rows) if trained[c] < need}:
        return (
            f"too few training rows of {_listed(few)}: a class needs {need}; empty labels leave LoRAs "
            "out"
        )
    return ""


def _listed(counts: Mapping[str, int]) -> str:
    """Classes with their counts, the smallest first."""
    ordered = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    shown = ", ".join(f"{c!r} ({n})" for c, n in ordered[:_SHOWN])
    return shown + (f", … ({len(ordered)} classes)" if len(ordered) > _SHOWN else "")
