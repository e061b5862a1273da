"""Labels of turns: of one message each, as spans of the chat or as rows of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from actprobe.texts import forms
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed, Place, Problems
from actprobe.texts.records import TurnSpec
from actprobe.texts.spans import IGNORED, Span, Spans
from actprobe.texts.values import is_missing


class Turn(NamedTuple):
    """A message that counts: the row of its chat, its number in it, and its label in the file."""

    row: int
    turn: int
    label: Any


def labelled(
    chats: Sequence[Chat],
    raws: Sequence[Sequence[Mapping[str, Any]]],
    columns: Mapping[str, Sequence[Any]],
    spec: TurnSpec,
    place: Place,
) -> list[Turn]:
    """The turns of the role that the spec names, chat by chat, without those that have no label.

    raws: the file's objects of the chats' messages ({} for those of a template). Raises BadInput
    where no turn has a label, and for a list of labels of another length.
    """
    problems = Problems(place)
    found: list[Turn] = []
    for i, chat in enumerate(chats):
        with problems.of(i):
            own = [n for n, m in enumerate(chat.messages) if m["role"] == spec.role]
            values = _labels(own, raws[i], columns, spec, i)
            found += [Turn(i, n, v) for n, v in zip(own, values, strict=True)]
    problems.throw()
    key, kept = spec.named, found
    if key is not None:
        kept = [t for t in found if not is_missing(t.label) and t.label != ""]
    if not kept:
        what = f"has a label {key!r}" if key else "is there"
        raise place.bad(f"no message of role {spec.role} {what} (config key `turns`)")
    return kept


def _labels(
    own: Sequence[int],
    raw: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[Any]],
    spec: TurnSpec,
    row: int,
) -> Sequence[Any]:
    if spec.labels is None:
        return [raw[n].get(spec.label) if spec.label else None for n in own]
    values = forms.parsed(columns[spec.labels][row], "labels of turns")
    if not isinstance(values, list) or len(values) != len(own):
        n = len(values) if isinstance(values, list) else "no list of"
        raise Malformed(
            f"{n} labels in column {spec.labels!r}, and {len(own)} messages of role {spec.role}"
        )
    return values


def as_spans(
    turns: Sequence[Turn], label: Sequence[int], classes: Sequence[str], chats: Sequence[Chat]
) -> Spans:
    """The labels of turns as spans of all that these say."""
    rows: list[list[Span]] = [[] for _ in chats]
    for t, y in zip(turns, label, strict=True):
        said = chats[t.row].said_by(t.turn)
        if said is not None:
            rows[t.row].append(Span(*said, int(y)))
    return Spans(rows, classes, IGNORED)


def until(chat: Chat, turn: int) -> Chat:
    """The chat up to the end of a turn."""
    return Chat(chat.messages[: turn + 1], chat.tools)


def holding(chat: Chat, end: int) -> Chat:
    """The chat up to the end of the message in which its character before `end` stands."""
    turns = range(len(chat.messages))
    own = [n for n in turns if (said := chat.said_by(n)) is not None and said[0] < end]
    return until(chat, max(own))
