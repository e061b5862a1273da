"""Label encoding: sorted classes become 0, 1, …, as sklearn's LabelEncoder numbers them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from actprobe.config import nearest
from actprobe.texts.checks import Place, is_missing

_BOOLEANS = {"True": True, "TRUE": True, "true": True}
_BOOLEANS |= {"False": False, "FALSE": False, "false": False}
_MISSING = {"", "nan", "NaN"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse(values: Sequence[str]) -> list[Any]:
    """Values of a column that was written as text (csv, tsv), in the type that all of them have.

    Booleans when every value is one, else numbers, else the strings themselves; empty cells and NaN
    become None.
    """
    given = {v for v in values if v not in _MISSING}
    if given <= _BOOLEANS.keys():
        typed: dict[str, Any] = _BOOLEANS
    elif all(_NUMBER.fullmatch(v.strip()) for v in given):
        typed = {v: int(v) if v.strip().lstrip("+-").isdecimal() else float(v) for v in given}
    else:
        typed = {v: v for v in given}
    return [typed.get(v) for v in values]


def encode(
    values: Sequence[Any], positive: str | None, place: Place
) -> tuple[np.ndarray, list[str]]:
    """Class indices [N] int32 and the class names, index = label.

    False < True, numbers by value, strings by code point. `positive` names the class that becomes
    1: of two classes the other becomes 0, of more all others together. Raises BadInput for missing
    labels, labels of several types, fractions, fewer than two classes, an unknown positive class.
    """
    missing = [i for i, v in enumerate(values) if is_missing(v)]
    if missing:
        raise place.bad("the label is missing; expected one in every row", missing)
    kinds = {float if isinstance(v, float) else type(v) for v in values}
    if kinds <= {int, float}:
        fractions = [i for i, v in enumerate(values) if isinstance(v, float) and not v.is_integer()]
        if fractions:
            raise place.bad(
                f"the label {values[fractions[0]]} is not a class; expected whole numbers, "
                "booleans or strings",
                fractions,
            )
        values = [int(v) for v in values]
    elif kinds not in ({bool}, {str}):
        names = ", ".join(sorted(k.__name__ for k in kinds))
        raise place.bad(f"labels of type {names}; expected whole numbers, booleans or strings")
    ordered = sorted(set(values))
    classes = [str(c) for c in ordered]
    if len(classes) < 2:
        raise place.bad(
            f"all {len(values)} labels are {classes[0]!r}; expected two classes or more"
        )
    index = {c: i for i, c in enumerate(ordered)}
    labels = np.array([index[v] for v in values], dtype=np.int32)
    if positive is None:
        return labels, classes
    if positive not in classes:
        raise place.bad(
            f"no label {positive!r} (config key `positive`); {nearest(positive, classes)}"
        )
    chosen = classes.index(positive)
    rest = classes[1 - chosen] if len(classes) == 2 else f"not {positive}"
    return (labels == chosen).astype(np.int32), [rest, positive]
