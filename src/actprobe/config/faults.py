"""What is wrong with a mapping, in the words that the user reads: place, value, expectation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from actprobe.config.kinds import EXPECTED, NUMERIC
from actprobe.config.names import nearest

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_BOUNDS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} entries at most",
    "string_too_short": "text that is not empty",
}
_LONGEST = 80


def faults(error: ValidationError) -> list[str]:
    """One line for each fault, in the order of the places; each once."""
    found = sorted(error.errors(include_url=False), key=lambda e: [_order(p) for p in e["loc"]])
    return list(dict.fromkeys(map(_line, found)))


def _order(part: int | str) -> tuple[int, str]:
    return (part, "") if isinstance(part, int) else (-1, part)


def _line(fault: ErrorDetails) -> str:
    place = list(fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing" and isinstance(place[-1], int):
        return f"{_where(place[:-1])}: {_shown(fault['input'])}: expected a longer list"
    if kind == "missing":
        return f"{_where(place[:-1])}: {place[-1]!r} is missing"
    text = context["text"] if kind == "said" else _expected(fault)
    if isinstance(fault["input"], Mapping) and kind == "said":
        return f"{_where(place)}: {text}"
    return f"{_where(place)}: {_shown(fault['input'])}: {text}"


def _where(place: Iterable[int | str]) -> str:
    """The keys on the way; without the kinds of values, and the mark of a key that is wrong itself."""
    parts = [str(p) for p in place if not re.fullmatch(r"<.*>|\[key\]", str(p))]
    return ".".join(parts) or "(top level)"


def _expected(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if (
        kind == "float_type"
        and isinstance(fault["input"], str)
        and NUMERIC.fullmatch(fault["input"])
    ):
        return f"expected a number, which YAML reads {float(fault['input'])!r} as"
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}"
    if kind in _BOUNDS:
        return f"expected {_BOUNDS[kind].format(**context)}"
    if kind == "union_tag_invalid":
        *kinds, last = re.findall(r"<(.*?)>", context["expected_tags"])
        return f"expected {', '.join(kinds)} or {last}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"expected {EXPECTED.get(pattern, f'text that {pattern} fits')}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        words = re.sub(r"True|False", lambda m: m[0].lower(), context["expected"])
        close = nearest(str(fault["input"]), known)
        return f"expected {words}; {close}" if close.startswith("did") else f"expected {words}"
    return str(fault["msg"])


def _shown(value: Any) -> str:
    """A value as a config spells it, cut where it is long."""
    named = {None: "null", True: "true", False: "false"}
    text = named[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) < _LONGEST else f"{text[:_LONGEST]}…"
