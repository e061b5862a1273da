"""Rows that are parts of rows: turns of chats, and spans, with what a model reads up to their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe.texts import turns
from actprobe.texts.chats import Chat
from actprobe.texts.spans import IGNORED, Frame, Spans


@dataclass
class Rows:
    """Rows on their way into the table: what a model is given, and what they are called.

    frames: where spans that a file counts in a row's text are counted; raws: the file's objects of the
    chats' messages; parts: characters of the text that each row's label is of, where rows are parts.
    """

    ids: list[str]
    texts: list[str]
    digests: list[str]
    frames: list[Frame]
    chats: list[Chat] | None = None
    raws: list[list[Mapping[str, Any]]] | None = None
    parts: list[tuple[int, int]] | None = None


@dataclass(frozen=True)
class Parts:
    """Parts of rows. at: the row of each; numbers: its number there; spans: its characters in the text;
    chats: the chat up to the end of the message that holds it, None for texts."""

    at: list[int]
    numbers: list[int]
    spans: list[tuple[int, int]]
    chats: list[Chat] | None


def of_turns(chats: Sequence[Chat], found: Sequence[turns.Turn]) -> Parts:
    """What each of these turns says."""
    ends = [turns.until(chats[t.row], t.turn) for t in found]
    spans = [c.said_by(t.turn) or (0, 0) for c, t in zip(ends, found, strict=True)]
    return Parts([t.row for t in found], [t.turn for t in found], spans, ends)


def of_spans(chats: Sequence[Chat] | None, spans: Spans) -> tuple[Parts, list[int]]:
    """The spans that are not left out, and their labels."""
    found = [(i, k, s) for i, row in enumerate(spans.rows) for k, s in enumerate(row)]
    found = [f for f in found if f[2].label != IGNORED]
    ends = None if chats is None else [turns.holding(chats[i], s.end) for i, _, s in found]
    where = [(s.start, s.end) for *_, s in found]
    parts = Parts([i for i, *_ in found], [k for _, k, _ in found], where, ends)
    return parts, [s.label for *_, s in found]


def parted(rows: Rows, parts: Parts) -> Rows:
    """A row for each part."""
    ids = [f"{rows.ids[i]}.{n}" for i, n in zip(parts.at, parts.numbers, strict=True)]
    if (chats := parts.chats) is not None:
        texts, digests = [c.text for c in chats], [c.digest for c in chats]
    else:
        texts, digests = ([of[i] for i in parts.at] for of in (rows.texts, rows.digests))
    return Rows(ids, texts, digests, [], chats, None, parts.spans)
