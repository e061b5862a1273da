"""Labels of parts of a text: character spans that a file annotates, and labels of turns.

Both become spans of the row's text: start, end (past the last character) and the number of a class,
-1 for a part that is to be left out. What lies in no span is `outside`: 0 (it is of the first
class) or -1 (nothing is known of it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from actprobe.texts import forms
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed, Place, Problems
from actprobe.texts.records import SpanSpec
from actprobe.texts.values import cell_text, is_missing, listed, shown

IGNORED = -1
_MOST = 127  # classes


class Span(NamedTuple):
    """Characters start to end of a row's text, and their class (-1: left out)."""

    start: int
    end: int
    label: int


@dataclass(frozen=True)
class Spans:
    """The spans of each row, by their beginning; classes: name of each label; outside: 0 or -1;
    unlabelled: the file gives none of them a label."""

    rows: Sequence[Sequence[Span]]
    classes: Sequence[str]
    outside: int
    unlabelled: bool = False

    def facts(self) -> dict[str, Any]:
        """What the header says: spans in all and of each class, rows that have any."""
        counts = Counter(s.label for row in self.rows for s in row)
        return {
            "n": counts.total(),
            "rows": sum(map(bool, self.rows)),
            "classes": list(self.classes),
            "counts": [counts[k] for k in range(len(self.classes))],
            "ignored": counts[IGNORED],
            "outside": self.outside,
        }


class _Found(NamedTuple):
    start: int
    end: int
    label: str | None  # of the file; None without one


def read(
    values: Sequence[Any],
    spec: SpanSpec,
    frames: Sequence[Frame],
    place: Place,
) -> Spans:
    """The annotated spans of a column.

    values: a list of each row, of [start, end] or [start, end, label], or of objects with the keys
    that the spec names; frames: of each row. Raises BadInput for a
    span that lies outside of its text, that quotes other words, or that is of no known form.
    """
    problems = Problems(place)
    found: list[list[_Found]] = []
    for i, (value, frame) in enumerate(zip(values, frames, strict=True)):
        with problems.of(i):
            found.append(_row(value, spec, frame))
    problems.throw()
    labels = dict.fromkeys(s.label for row in found for s in row)
    names, classes = _classes(labels, spec, place)
    rows = [sorted(Span(s.start, s.end, names[s.label]) for s in row) for row in found]
    outside = 0 if spec.outside == "negative" else IGNORED
    return Spans(rows, classes, outside, unlabelled={*labels} <= {None})


class Frame(NamedTuple):
    """Where the spans of a row are counted.

    text: the row's text; at: where it is counted from, and end: where that ends; chat: of the row,
    None for a plain text; first: number of the message that the file calls 0.
    """

    text: str
    at: int
    end: int
    chat: Chat | None = None
    first: int = 0


def _row(value: Any, spec: SpanSpec, frame: Frame) -> list[_Found]:
    if is_missing(value) or value == "":
        return []
    entries = forms.parsed(value, "spans")
    if not isinstance(entries, list):
        raise Malformed(f"the spans are {shown(entries)}; expected a list")
    found: list[_Found] = []
    for entry in entries:
        found.append(_entry(entry, spec, frame, found[-1].end if found else 0))
    return found


def _entry(entry: Any, spec: SpanSpec, frame: Frame, after: int) -> _Found:
    if isinstance(entry, list) and len(entry) in (2, 3):
        entry = dict(zip((spec.start, spec.end, spec.label), entry, strict=False))
    if not isinstance(entry, Mapping):
        raise Malformed(
            f"the span {shown(entry)}; expected [start, end, label] or an object with these keys"
        )
    low, high = _range(entry, spec, frame)
    quoted = entry.get(spec.text)
    start: Any = entry.get(spec.start)
    end: Any = entry.get(spec.end)
    if end is None and type(start) is int and isinstance(quoted, str):
        end = start + len(quoted)
    length = high - low
    good = type(start) is int and type(end) is int and 0 <= start < end <= length
    if isinstance(quoted, str) and quoted:
        if not good or frame.text[low + start : low + end] != quoted:
            at = frame.text.find(quoted, max(low, after), high)
            if at < 0:
                raise Malformed(f"the span {shown(quoted)} does not stand in its text")
            start, end = at - low, at - low + len(quoted)
    elif not good:
        raise Malformed(
            f"the span from {shown(start)} to {shown(end)} of a text of {length} characters"
        )
    return _Found(low + start, low + end, cell_text(entry.get(spec.label)))


def _range(entry: Mapping[str, Any], spec: SpanSpec, frame: Frame) -> tuple[int, int]:
    """Where the text in which a span is counted begins and ends."""
    where, chat = spec.counted, frame.chat
    if chat is None or where == "text":
        return frame.at, frame.end
    number = entry.get(spec.message)
    if where is None:
        where = "last_assistant" if number is None else "message"
    if where == "message":
        turn = number + frame.first if type(number) is int and number >= 0 else -1
        if not 0 <= turn < len(chat.messages):
            raise Malformed(f"a span of message {shown(number)}, which the chat does not have")
    else:
        role = where.removeprefix("last_")
        turns = [n for n, m in enumerate(chat.messages) if m["role"] == role]
        if not turns:
            raise Malformed(f"spans of the last message of role {role}; the chat has none")
        turn = turns[-1]
    return chat.contents[turn]


def _classes(
    labels: Mapping[str | None, None], spec: SpanSpec, place: Place
) -> tuple[dict[str | None, int], list[str]]:
    """The number of each label of the file, and the names of the classes."""
    known = [v for v in labels if v is not None]
    ignored = [v for v in known if v in spec.ignore]
    used = sorted(set(known) - set(ignored))
    numbers: dict[str | None, int] = dict.fromkeys(ignored, IGNORED)
    negative = spec.outside == "negative"
    if not known:  # spans alone say what they are
        return {None: 1}, ["outside", "span"]
    if positive := spec.positive:
        if missing := [v for v in positive if v not in used]:
            raise place.bad(
                f"no span of class {shown(missing[0])}; their classes are {listed(used)}"
            )
        others = [v for v in used if v not in positive]
        numbers |= {v: int(v in positive) for v in used}
        names = [others[0] if len(others) == 1 else "outside" if negative else "other",
                 positive[0] if len(positive) == 1 else " or ".join(positive)]  # fmt: skip
        return {None: IGNORED, **numbers}, names
    names = ["outside", *used] if negative else used
    if len(names) > _MOST:
        raise place.bad(f"spans of {len(used)} classes; expected {_MOST} at most")
    if len(names) < 2:
        remedy = "" if spec["rows"] else ", or `outside: negative`"
        raise place.bad(f"all spans are of class {listed(names)}; expected two classes{remedy}")
    numbers |= {v: names.index(v, int(negative)) for v in used}
    return {None: IGNORED, **numbers}, names
