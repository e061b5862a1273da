"""Names that a config uses: is each known, and which one was meant."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable

from actprobe.base.errors import ConfigError


def nearest(word: str, known: Iterable[str]) -> str:
    """ "did you mean X?" when a known word is close, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"expected one of: {shown}" if known else "none is defined"


def require_known(name: str, known: Iterable[str], where: str, word: str) -> None:
    """Raise ConfigError, with the nearest name, unless a name is among the known ones."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"{where} has no {word} {name!r}; {nearest(name, known)}")


def matching(patterns: Iterable[str], known: Iterable[str], where: str, word: str) -> list[str]:
    """The known names that fit one of these glob patterns, each once, in the order of the patterns.

    Raises ConfigError for a pattern that none fits, with the nearest name.
    """
    known = list(known)
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = fnmatch.filter(known, pattern)
        if not matched:
            raise ConfigError(f"{where}: no {word} matches {pattern!r}; {nearest(pattern, known)}")
        found.update(dict.fromkeys(matched))
    return list(found)
