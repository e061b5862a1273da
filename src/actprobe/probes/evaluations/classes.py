"""Which class of a collection is which class of a fit: by name. Light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actprobe.probes.kinds import BINARY, CONTINUOUS, kind_of

UNKNOWN = -1


class Differ(Exception):
    """The labels of a collection are not those of a fit; the message has both."""


def numbers(kind: str, ours: Sequence[str], theirs: Sequence[str], by_number: bool) -> list[int]:
    """For each class of a collection its number in the fit; UNKNOWN for a class that the fit lacks.

    kind: of the fit's labels; ours, theirs: names by number; by_number: two classes are taken by number:
    either is about pairs of answers, whose classes have no names of their own, or the config says for
    both which class is meant (`positive`). Of two classes the positive one
    must have the same name, and the only other class is the negative one; of several two at least must
    be known. Raises Differ.
    """
    if by_number and len(ours) == len(theirs) == 2:
        return [0, 1]
    found = [ours.index(c) if c in ours else UNKNOWN for c in theirs]
    if kind == BINARY and len(theirs) == 2 and 1 in found:
        return [1 if number == 1 else 0 for number in found]
    if sum(number != UNKNOWN for number in found) < 2:
        raise Differ(f"has the classes {_words(theirs)}, the probe knows {_words(ours)}")
    return found


def of_facts(ours: Mapping[str, Any], theirs: Mapping[str, Any], by_number: bool) -> None:
    """Raise Differ where what the headers of two texts tell of their labels cannot be matched.

    A collection without labels suits every fit: it is scored, and has no numbers.
    """
    if not _labelled(theirs):
        return
    kinds = kind_of(ours), kind_of(theirs)
    if CONTINUOUS in kinds:
        if kinds[0] != kinds[1]:
            raise Differ(f"has {kinds[1]} labels, the probe is of {kinds[0]} ones")
        return
    numbers(kinds[0], ours["classes"], theirs["classes"], by_number)


def _labelled(facts: Mapping[str, Any]) -> bool:
    return bool(facts.get("classes")) or kind_of(facts) == CONTINUOUS


def _words(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
