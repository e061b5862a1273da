"""Whether the classes of a label column are large enough to be split; light, no array library."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

LORAS, GROUPS = 3, 2  # fewest of a class: one to train, one to validate, one to test; two sides
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
    """What keeps classes from being trained and tested, in words; empty when nothing is known to.

    rows: the LoRAs that have a label and can be used; least: `min_per_class`, below which classes
    are left out. Without a `split` column a class needs 3 LoRAs (2 groups, where there are groups);
    with one it needs a training row, or two where no row validates.
    """
    left_out = smaller(rows, least)
    kept = [r for r in rows if r["label"] and r["label"] not in left_out]
    classes = sizes(kept)
    if len(classes) < 2:
        names = (
            f"all LoRAs have the label {next(iter(classes))!r}" if classes else "no LoRA is left"
        )
        dropped = f" (min_per_class: {least} leaves out {_listed(left_out)})" if left_out else ""
        return f"{names}; two classes are needed{dropped}"
    if "split" in kept[0]:
        return _by_column(kept, rule)
    if few := {c: n for c, n in classes.items() if n < LORAS}:
        return (
            f"too few LoRAs of {_listed(few)}: a class needs {LORAS}, to train, validate and test; "
            f"`min_per_class: {LORAS}` leaves such classes out"
        )
    return _in_all(kept, len(classes), rule) or _in_groups(kept, rule)


def _in_all(rows: Sequence[Row], classes: int, rule: Rule) -> str:
    """`problem` of the number of LoRAs: every class has a row on every side of a stratified split."""
    n, test, validation = len(rows), rule["test"], rule["validation"]
    if rule["kind"] == "random":
        return ""
    second = enough(n - math.ceil(n * test), classes, validation / (1 - test))
    if enough(n, classes, test) and ("group" in rows[0] or second):
        return ""
    return (
        f"{n} LoRAs of {classes} classes are too few to put {test:.0%} and {validation:.0%} of them "
        f"aside with some of every class; about {math.ceil(classes / min(test, validation))} are "
        "needed, or a protocol with larger shares"
    )


def _in_groups(rows: Sequence[Row], rule: Rule) -> str:
    """`problem` of groups, which stay on one side."""
    groups: dict[str, set[str]] = defaultdict(set)
    for n, r in enumerate(rows):  # a LoRA without a group is one of its own
        groups[r["label"]].add(r.get("group") or f"\0{n}")
    if few := {c: len(g) for c, g in groups.items() if len(g) < GROUPS}:
        return (
            f"too few groups of {_listed(few)}: a class needs {GROUPS}, one to train and one to test; "
            "empty labels leave LoRAs out"
        )
    total = len(set().union(*groups.values()))
    need = max(folds(rule["test"]), 1 + folds(rule["validation"] / (1 - rule["test"])))
    if rule["kind"] != "random" and "group" in rows[0] and total < need:
        return f"{total} groups are too few to be cut into {need}"
    return ""


def _by_column(rows: Sequence[Row], rule: Rule) -> str:
    """`problem` where a column gives the split."""
    sides = Counter(r["split"] for r in rows)
    if "train" not in sides or sides.keys() == {"train"}:
        return ""  # the column itself is wrong, which `splits` says
    cut = not sides.keys() - {"train", "test"}  # validation rows are cut from training rows
    trained = Counter(r["label"] for r in rows if r["split"] == "train")
    if few := {c: trained[c] for c in sizes(rows) if trained[c] < 1 + cut}:
        return (
            f"too few training rows of {_listed(few)}: a class needs {1 + cut}; empty labels leave "
            "LoRAs out"
        )
    if (
        cut
        and rule["kind"] != "random"
        and not enough(sides["train"], len(trained), rule["validation"])
    ):
        return (
            f"{sides['train']} training rows of {len(trained)} classes are too few to put "
            f"{rule['validation']:.0%} aside with some of every class; name validation rows"
        )
    return ""


def _listed(counts: Mapping[str, int]) -> str:
    """Classes with their counts, the smallest first."""
    ordered = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    shown = ", ".join(f"{c!r} ({n})" for c, n in ordered[:_SHOWN])
    return shown + (f", … ({len(ordered)} classes)" if len(ordered) > _SHOWN else "")
