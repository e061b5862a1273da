"""What a value of a file says: as text, as a name, and whether two spellings mean the same."""

from __future__ import annotations

import re
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

EXACT = 2**53  # below it a float is the whole number that was written

_BOOLEANS = {"True": True, "TRUE": True, "true": True}
_BOOLEANS |= {"False": False, "FALSE": False, "false": False}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def is_missing(value: Any) -> bool:
    """True for None and NaN."""
    return value is None or value != value


def cell_text(value: Any) -> str | None:
    """A cell as text; None for a missing or empty one."""
    return None if is_missing(value) or value == "" else str(value)


def meaning(text: str) -> tuple[str, Hashable]:
    """What a cell of a csv or tsv file means: its kind and its value; equal for two spellings.

    ("boolean", bool) for True, TRUE, true, …; ("number", Decimal), exact, for 1, 01, 1.0, +1, 1e0;
    else ("word", the text without white space around it).
    """
    word = text.strip()
    if word in _BOOLEANS:
        return "boolean", _BOOLEANS[word]
    if _NUMBER.fullmatch(word):
        return "number", Decimal(word)
    return "word", word


def is_unicode(text: str) -> bool:
    """False for a text with half a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """A value as messages show it: its repr, cut when it is long."""
    text = repr(value[:200] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def listed(values: Any, most: int = 8) -> str:
    """The first few of several values."""
    first = [shown(v) for v in list(values)[:most]]
    return ", ".join(first) + (", …" if len(values) > most else "")
