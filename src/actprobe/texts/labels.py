"""Label encoding: sorted classes become 0, 1, …, as sklearn's LabelEncoder numbers them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from actprobe.base.keys import canonical_json
from actprobe.config import nearest
from actprobe.texts.checks import Place
from actprobe.texts.values import EXACT, is_missing, is_unicode, listed, meaning, shown

_MISSING = {"", "nan", "NaN"}
_NO_NUMBERS = {"NA", "N/A", "<NA>", "NAN", "None", "none", "NULL", "null"}  # others write for one
_NAMES = 1 << 18  # bytes; the names stand in the artefact's header, which has room for this

MOST_CLASSES = 20  # more different whole numbers are values, not classes

Encoded = tuple[np.ndarray, list[str]]


def are_values(
    values: Sequence[Any], kind: str | None, positive: str | None, written: bool, place: Place
) -> bool:
    """Whether the labels are values of a continuous quantity, or of a class each.

    kind: what the config calls them; None lets them tell: numbers with fractions, or of which more
    than 20 are different, are values. A `positive` class makes them classes. written: cells are text
    (csv, tsv). Raises BadInput where `binary` labels have not two classes.
    """
    if kind is not None or positive is not None:
        different = len({shown(v) for v in values})
        if kind == "binary" and positive is None and different != 2:
            raise place.bad(f"`label_kind: binary`, and there are {different} different labels")
        return kind == "continuous"
    numbers = [_number(v, written) for v in values]
    known = {n for n in numbers if n is not None}
    if len(known) < 2 or any(
        n is None and not _is_gap(v) for n, v in zip(numbers, values, strict=True)
    ):
        return False
    return len(known) > MOST_CLASSES or any(n != n.to_integral_value() for n in known)


def as_values(values: Sequence[Any], written: bool, place: Place) -> np.ndarray:
    """Labels as float64 [N]. Raises BadInput for what is no finite number, and for missing ones."""
    found = [_number(v, written) for v in values]
    bad = [i for i, n in enumerate(found) if n is None]
    if bad:
        first = values[bad[0]]
        said = "is missing" if _is_gap(first) else f"{shown(first)} is no number"
        raise place.bad(
            f"the label {said}; expected a number in every row (`keep` and `where` leave rows out)",
            bad,
        )
    numbers = np.array([float(n) for n in found if n is not None])
    large = np.flatnonzero(~np.isfinite(numbers)).tolist()
    if large:
        raise place.bad(f"the label {shown(values[large[0]])} is too large for a number", large)
    if np.ptp(numbers) == 0:
        raise place.bad(f"all {len(numbers)} labels are {numbers[0]:g}; expected different values")
    return numbers


def _is_gap(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and value.strip() in _MISSING)


def _number(value: Any, written: bool) -> Decimal | None:
    """The number that a cell stands for; None for what is none, and for booleans. Text is a number
    only where cells are written."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        kind, found = meaning(value) if written else ("word", None)
        return found if kind == "number" and isinstance(found, Decimal) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or is_missing(value):
        return None
    return Decimal(value) if abs(value) != float("inf") else None


def encode_written(
    values: Sequence[str], positive: str | None, place: Place, column: str = "label"
) -> Encoded:
    """Class indices [N] int32 and class names of a column that was written as text (csv, tsv).

    Names are as written, whatever they look like: a label such as "=1+1" is data. Where all labels
    are booleans or all are numbers they are ordered as such, else by code point. `column` names
    theirs in messages. Raises BadInput for missing labels (empty or "nan"), for two spellings of one
    label (1 and 01, True and true, "a" and "a "), for booleans or missing values among numbers, for
    fractions, and as `encode`.
    """
    missing = [i for i, v in enumerate(values) if v.strip() in _MISSING]
    if missing:
        raise place.bad(
            "the label is missing (empty, or nan); expected one in every row (`keep` leaves rows "
            "out)",
            missing,
        )
    first: dict[str, int] = {}
    for i, v in enumerate(values):
        first.setdefault(v, i)
    known: dict[Any, str] = {}
    for v, i in first.items():
        other = known.setdefault(meaning(v), v)
        if other != v:
            raise place.bad(
                f"the label {shown(v)} and {shown(other)} of {place.row(first[other])} are two "
                f"spellings of one {meaning(v)[0]}; expected one of them in the whole file (where "
                "they are two classes: a json or jsonl file with strings)",
                [i],
            )
    kinds = {kind for kind, _ in known}
    if kinds == {"number"}:
        _whole(values, known, place)
    elif kinds != {"boolean"}:
        _one_kind(first, known, place, column)
        return _numbered(values, sorted(first), positive, place)
    by_value: Any = sorted(known.items(), key=lambda item: item[0][1])
    return _numbered(values, [v for _, v in by_value], positive, place)


def _whole(values: Sequence[str], known: dict[Any, str], place: Place) -> None:
    fractions = {v for (_, n), v in known.items() if n != Decimal(n).to_integral_value()}
    if fractions:
        rows = [i for i, v in enumerate(values) if v in fractions]
        raise _not_a_class(values[rows[0]], rows, place)


def _one_kind(first: dict[str, int], known: dict[Any, str], place: Place, column: str) -> None:
    """Raise BadInput for booleans among numbers, and for NA, null, … among either."""
    number = next((v for kind, v in known.items() if kind[0] != "word"), None)
    words = {v.strip() for kind, v in known.items() if kind[0] == "word"}
    if number is None or not words <= _NO_NUMBERS:
        return
    kind = meaning(number)[0]
    other = next(v for v in first if meaning(v)[0] != kind)
    kept = [v for v in first if meaning(v)[0] == kind]
    remedy = "expected labels of one kind"
    if words:
        remedy += f"; to leave such rows out write `keep: {{{column}: [{listed(kept)}]}}`"
    raise place.bad(
        f"the label {shown(other)} stands among labels that are {kind}s, such as {shown(number)}; "
        f"{remedy}",
        [first[other]],
    )


def encode(values: Sequence[Any], positive: str | None, place: Place) -> Encoded:
    """Class indices [N] int32 and the class names, index = label.

    False < True, numbers by value, strings by code point. `positive` names the class that becomes
    1: of two classes the other becomes 0, of more all others together. Raises BadInput for missing
    labels, labels of several types, fractions, floats that are not exact, one number as 1 and 1.0,
    fewer than two classes, more classes than can be names, an unknown positive class.
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    missing = [i for i, v in enumerate(values) if is_missing(v) or v == "" or _is_blank(v)]
    if missing:
        raise place.bad(
            "the label is missing; expected one in every row (`keep` leaves rows out)", missing
        )
    kinds = {float if isinstance(v, float) else type(v) for v in values}
    if kinds <= {int, float}:
        values = _integers(values, place)
    elif kinds not in ({bool}, {str}):
        found = ", ".join(sorted(k.__name__ for k in kinds))
        raise place.bad(f"labels of type {found}; expected whole numbers, booleans or strings")
    ordered = sorted(set(values))
    bad = [i for i, v in enumerate(values) if isinstance(v, str) and not is_unicode(v)]
    if bad:
        raise place.bad(
            f"the label {shown(values[bad[0]])} holds half a surrogate pair; expected valid Unicode",
            bad,
        )
    return _numbered(values, ordered, positive, place)


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _integers(values: Sequence[int | float], place: Place) -> list[int]:
    floats = [i for i, v in enumerate(values) if isinstance(v, float)]
    fractions = [i for i in floats if not float(values[i]).is_integer()]
    if fractions:
        raise _not_a_class(str(values[fractions[0]]), fractions, place)
    large = [i for i in floats if abs(values[i]) >= EXACT]
    if large:
        raise place.bad(
            f"the label {values[large[0]]} is a floating-point number too large to be exact; "
            "expected whole numbers of an integer type, or strings",
            large,
        )
    whole = {v for v in values if not isinstance(v, float)}
    both = [i for i in floats if values[i] in whole]
    if both:
        raise place.bad(
            f"the label {values[both[0]]} is also written {int(values[both[0]])}; expected one "
            "spelling of a number",
            both,
        )
    return [int(v) for v in values]


def _not_a_class(value: str, rows: Sequence[int], place: Place) -> Exception:
    return place.bad(
        f"the label {value} is not a class; expected whole numbers, booleans or strings", rows
    )


def _numbered(
    values: Sequence[Any], ordered: Sequence[Any], positive: str | None, place: Place
) -> Encoded:
    classes = [str(c) for c in ordered]
    if len(classes) < 2:
        raise place.bad(
            f"all {len(values)} labels are {shown(classes[0])}; expected two classes or more"
        )
    if len(canonical_json(classes)) > _NAMES:
        raise place.bad(
            f"{len(classes)} different labels in {len(values)} rows, such as {shown(classes[0])}: "
            "too many or too long for names of classes; is `label` the right column?"
        )
    index = {c: i for i, c in enumerate(ordered)}
    labels = np.array([index[v] for v in values], dtype=np.int32)
    if positive is None:
        return labels, classes
    chosen = classes.index(_chosen(positive, classes, place))
    rest = classes[1 - chosen] if len(classes) == 2 else f"not {classes[chosen]}"
    return (labels == chosen).astype(np.int32), [rest, classes[chosen]]


def _chosen(positive: str, classes: Sequence[str], place: Place) -> str:
    """The class that `positive` names: as written, else the only one of the same value."""
    if positive in classes:
        return positive
    same = [c for c in classes if meaning(c) == meaning(positive)]
    if len(same) != 1:
        hint = f"write one of {listed(same)}" if same else nearest(positive, classes)
        raise place.bad(f"no label {shown(positive)} (config key `positive`); {hint}")
    return same[0]
