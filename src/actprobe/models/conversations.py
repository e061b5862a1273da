"""Chats through a model's chat template, and where in the string each message says what.

Templates trim contents, drop earlier reasoning, write calls of tools in ways of their own. So each
chat is rendered twice: as it is, and with a mark in the place of everything that it says. Between
the marks stands what the template writes; the same stands in the first string, and between it what
was said. Nothing is searched for, so that contents may repeat each other or the template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actprobe.models.align import (
    Fragment,
    Unmatched,
    aligned,
    mark,
    markers,
    name_mark,
    number_mark,
)
from actprobe.models.chat import Template
from actprobe.models.segments import PART, ROLE, Rendered, Segment
from actprobe.texts.chats import Chat, Part
from actprobe.texts.checks import Malformed

_BETWEEN = "\n\n"  # a system text that is put before the user's, and this


class _Leaf(NamedTuple):
    """Something that is said: its part of the chat, and its text."""

    part: Part
    text: str


_Marks = dict[_Leaf, int]  # leaf -> the number of its mark


class _Way(NamedTuple):
    """What templates want in different ways.

    as_text: arguments of tools as the text of an object, instead of the object; blank: the content of
    a message that calls tools and says nothing.
    """

    as_text: bool
    blank: str | None


_PLAIN = _Way(False, "")


@dataclass
class _Message:
    """A message on its way into the template: its plain keys, and what it says, where it says it."""

    keys: dict[str, Any]
    content: list[str | _Leaf] | None = None
    reasoning: list[str | _Leaf] | None = None
    calls: list[tuple[Mapping[str, Any], _Leaf]] = field(default_factory=list)


@dataclass(frozen=True)
class Conversations:
    """What a model's template makes of chats.

    settings: `chat` of the model's entry in the config: `system` goes before chats that have none,
    `fold_system` puts a system text before the first user message, `add_generation_prompt` holds
    for chats that do not end with the assistant.
    """

    template: Template
    settings: Mapping[str, Any]

    def render(self, chat: Chat, prompt: bool | None = None) -> Rendered:
        """The rendered chat and the segments of what it says.

        prompt: whether what begins the assistant's answer follows; None as the settings say. Raises
        Malformed for a chat that the template refuses, or does not show whole.
        """
        if prompt is None:
            ended = chat.messages[-1]["role"] == "assistant"
            prompt = self.settings["add_generation_prompt"] and not ended
        messages = self._messages(chat, self.settings["fold_system"])
        first: Malformed | None = None
        for way in _ways(messages):
            try:
                return self._rendered(messages, chat, prompt, way)
            except Malformed as e:
                first = first or e
        assert first is not None
        raise first

    def _rendered(
        self, messages: Sequence[_Message], chat: Chat, prompt: bool, way: _Way
    ) -> Rendered:
        string = self._string(messages, chat, chat.tools, prompt, way)
        marks = {leaf: i for i, leaf in enumerate(_leaves(messages))}
        try:
            marked = [_spelled(m, marks, way) for m in messages]
            skeleton = self.template.render(marked, chat.tools, prompt)
        except Exception as e:
            raise Malformed(f"the chat template cannot be followed: {_said(e)}") from e
        return string, _segments(string, skeleton, marks, messages)

    def shows_tools(self, chat: Chat) -> bool:
        """Whether the template shows the tools of a chat that has some."""
        messages = self._messages(chat, self.settings["fold_system"])
        plain, shown = (
            self._string(messages, chat, tools, False, _ways(messages)[0])
            for tools in (None, chat.tools)
        )
        return shown != plain

    def _messages(self, chat: Chat, fold: bool) -> list[_Message]:
        messages = [_message(chat, turn) for turn in range(len(chat.messages))]
        system = self.settings["system"]
        if system is not None and messages[0].keys["role"] not in ("system", "developer"):
            messages.insert(0, _Message({"role": "system"}, [system]))
        return _folded(messages) if fold else messages

    def _string(
        self,
        messages: Sequence[_Message],
        chat: Chat,
        tools: Sequence[Any] | None,
        prompt: bool,
        way: _Way,
    ) -> str:
        try:
            return self.template.render([_spelled(m, None, way) for m in messages], tools, prompt)
        except MemoryError:
            raise
        except Exception as e:  # of the template, which raises what it likes
            words = f"the chat template refuses it: {_said(e)}{self._hint(chat)}"
            raise Malformed(words) from e

    def _hint(self, chat: Chat) -> str:
        """What to write where the template lacks a role."""
        roles = dict.fromkeys(m["role"] for m in chat.messages)
        words = f" (roles: {', '.join(roles)})"
        if "system" in roles and not self.settings["fold_system"]:
            folded = self._messages(chat, fold=True)
            try:
                self.template.render([_spelled(m, None, _PLAIN) for m in folded], chat.tools)
            except Exception:
                return words
            words += (
                f"; {self.template.where}: {{fold_system: true}} puts the system text before the "
                "first user message"
            )
        return words


def _ways(messages: Sequence[_Message]) -> list[_Way]:
    """The ways to try, in this order."""
    if not any(m.calls for m in messages):
        return [_PLAIN]
    silent = any(m.calls and not m.content for m in messages)
    return [_Way(t, b) for b in (("", None) if silent else ("",)) for t in (False, True)]


def _said(e: Exception) -> str:
    return f"{type(e).__name__}: {e}"


def _message(chat: Chat, turn: int) -> _Message:
    """Message number `turn` with what it says taken apart."""
    raw, text = chat.messages[turn], chat.text
    parts = [p for p in chat.parts if p.turn == turn]
    low, high = chat.contents[turn]
    keys = {k: v for k, v in raw.items() if k in ("role", "tool_call_id", "name")}
    made = _Message(keys)
    if "content" in raw:
        inside = [p for p in parts if p.kind != "call" and low <= p.start < high]
        made.content = _cut(text, low, high, inside)
        parts = [p for p in parts if p not in inside]
    if "reasoning_content" in raw:
        own = [p for p in parts if p.kind == "reasoning"]
        said = raw["reasoning_content"]
        made.reasoning = [_Leaf(own[0], said)] if own else [said]
    calls = raw.get("tool_calls", ())
    leaves = [_Leaf(p, text[p.start : p.end]) for p in parts if p.kind == "call"]
    made.calls = list(zip(calls, leaves, strict=True))
    return made


def _cut(text: str, low: int, high: int, parts: Sequence[Part]) -> list[str | _Leaf]:
    """Characters low to high, the parts in them as leaves."""
    found: list[str | _Leaf] = []
    at = low
    for p in parts:
        found += [text[at : p.start], _Leaf(p, text[p.start : p.end])]
        at = p.end
    return [f for f in (*found, text[at:high]) if f]


def _folded(messages: list[_Message]) -> list[_Message]:
    """The system text before the first user message instead of in one of its own."""
    first, *rest = messages
    user = next((m for m in rest if m.keys["role"] == "user"), None)
    if first.keys["role"] != "system" or user is None or not first.content:
        return messages
    user.content = [*first.content, _BETWEEN, *(user.content or ())]
    return rest


def _leaves(messages: Sequence[_Message]) -> Iterator[_Leaf]:
    for m in messages:
        for said in (m.reasoning, m.content):
            yield from (f for f in said or () if isinstance(f, _Leaf))
        yield from (leaf for _, leaf in m.calls)


def _spelled(m: _Message, marks: _Marks | None, way: _Way) -> dict[str, Any]:
    """The message as the template gets it: with its texts, or with marks in their places."""

    def text(said: Sequence[str | _Leaf]) -> str:
        return "".join(f if isinstance(f, str) else f.text if marks is None else mark(marks[f])
                       for f in said)  # fmt: skip

    made = dict(m.keys)
    if m.calls and not m.content:
        made["content"] = way.blank
    elif m.content is not None:
        made["content"] = text(m.content)
    if m.reasoning is not None:
        made["reasoning_content"] = made["thinking"] = text(m.reasoning)
    if m.calls:
        made["tool_calls"] = [
            _call(c, None if marks is None else marks[leaf], way.as_text) for c, leaf in m.calls
        ]
    return made


def _call(call: Mapping[str, Any], number: int | None, as_text: bool) -> dict[str, Any]:
    """A call of a tool; number: of its leaf, to be marked with."""
    function = dict(call["function"])
    arguments = function["arguments"]
    if number is not None:
        function["name"] = name_mark(number)
        if arguments and isinstance(arguments, str):
            arguments = str(number_mark(number))
        elif arguments:
            arguments = {"actprobe": number_mark(number)}
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _segments(
    string: str, skeleton: str, marks: _Marks, messages: Sequence[_Message]
) -> list[Segment]:
    """Where the leaves stand in the string. Raises Malformed for one that is not shown."""
    leaves = list(marks)
    names = {marks[leaf]: c["function"]["name"] for m in messages for c, leaf in m.calls}
    found = markers(skeleton, len(leaves), names)
    for i, leaf in enumerate(leaves):
        if i not in found.shown and leaf.part.kind != "reasoning":
            what = "a call of a tool in message" if leaf.part.kind == "call" else "message"
            raise Malformed(
                f"the chat template does not show {what} {leaf.part.turn} ({leaf.part.role})"
            )
    try:
        fragments = aligned(string, found, [leaf.text for leaf in leaves])
    except Unmatched as e:
        part, text = leaves[e.leaf]
        raise Malformed(
            f"the chat template alters message {part.turn} ({part.role}): {text[:60]!r}"
        ) from None
    return [_segment(f, leaves[f.leaf].part) for f in fragments]


def _segment(f: Fragment, part: Part) -> Segment:
    at, n = part.start + f.at, f.n
    if part.kind == "call":
        at, n = part.start, part.end - part.start
    return Segment(f.start, f.end, at, n, ROLE[part.role], part.turn, PART[part.kind])
