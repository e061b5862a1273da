"""Where what a row says stands in the string that a chat template makes of it."""

from __future__ import annotations

from typing import NamedTuple

from actprobe.texts.chats import KINDS, ROLES

# Numbers in artefacts; 0 is what the template writes.
ROLE = {name: i for i, name in enumerate(("", *ROLES))}
PART = {name: i for i, name in enumerate(("", *KINDS))}
NO_TURN = -1


class Segment(NamedTuple):
    """A piece of the rendered string that says something.

    start, end: its characters there; at, n: where it stands in the row's text, and how many characters
    it is there: as many, but for what the template writes in another way (a call of a tool), which
    stands for the whole of it. role, turn, part: who says it, in which message, and what it is
    (`ROLE`, `PART`).
    """

    start: int
    end: int
    at: int
    n: int
    role: int
    turn: int
    part: int


Rendered = tuple[str, list[Segment]]
