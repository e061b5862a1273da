"""Chats in one form, whatever a file's: messages, tools, and the text that they amount to.

A message is `role`, and what is there of `content`, `reasoning_content`, `tool_calls`
(`{"type": "function", "function": {"name", "arguments"}}`, arguments an object or, where they are
no JSON object, a string), `tool_call_id` and `name`, in this order. The text of a chat is what its
messages say, one after the other with an empty line between: that is what text baselines read and
what spans are counted in. Templates decide what a model reads of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

ROLES = ("system", "developer", "user", "assistant", "tool")
KINDS = ("content", "reasoning", "call")

_BETWEEN = "\n\n"
# Reasoning that stands in the content, with its tags.
_REASONING = re.compile(r"\s*<(think|thinking)>(.*?)</\1>(.*)", re.DOTALL)


class Part(NamedTuple):
    """Something that a message says.

    turn: number of the message, from 0; kind: content, reasoning (inside its tags) or call (of a
    tool: its name and arguments); start, end: characters of the chat's text.
    """

    turn: int
    role: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Chat:
    """A chat. messages: in the form of this module; tools: definitions of tools, or None."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None

    @property
    def text(self) -> str:
        """What the messages say."""
        return self._layout[0]

    @property
    def parts(self) -> list[Part]:
        """What the messages say, piece by piece; none is empty or white space alone."""
        return self._layout[1]

    @property
    def contents(self) -> list[tuple[int, int]]:
        """Where the content of each message stands in the text; empty where it has none."""
        return self._layout[2]

    @cached_property
    def _layout(self) -> tuple[str, list[Part], list[tuple[int, int]]]:
        said: list[str] = []
        parts: list[Part] = []
        contents = []
        at = 0
        for turn, message in enumerate(self.messages):
            content = (0, 0)
            for kind, text in _said(message):
                start, end = at, at + len(text)
                said.append(text)
                at = end + len(_BETWEEN)
                if kind == "content":
                    content = (start, end)
                    parts += _content(turn, message["role"], text, start)
                elif text.strip():
                    parts.append(Part(turn, message["role"], kind, start, end))
            contents.append(content)
        return _BETWEEN.join(said), parts, contents

    def said_by(self, turn: int) -> tuple[int, int] | None:
        """Where all that a message says stands in the text; None where it says nothing."""
        own = [p for p in self.parts if p.turn == turn]
        start, end = self.contents[turn]
        edges = [(p.start, p.end) for p in own] + ([(start, end)] if end > start else [])
        return (min(s for s, _ in edges), max(e for _, e in edges)) if edges else None

    @property
    def digest(self) -> str:
        """SHA-256 of what the model is given: the messages and the tools."""
        whole = f"chat\0{dumps(self.messages)}\0{dumps(self.tools) if self.tools else ''}"
        return hashlib.sha256(whole.encode()).hexdigest()


def dumps(value: Any) -> str:
    """JSON that keeps the order of keys, in which templates print them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(messages: str, tools: str | None) -> Chat:
    """The chat of a row of a texts artefact."""
    return Chat(json.loads(messages), json.loads(tools) if tools else None)


def call_text(call: Mapping[str, Any]) -> str:
    """What a call of a tool says: its name and its arguments."""
    arguments = call["function"]["arguments"]
    words = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{call['function']['name']} {words}".strip()


def _said(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, text) of all that a message says."""
    found = [("reasoning", message["reasoning_content"])] if "reasoning_content" in message else []
    if message.get("content"):
        found.append(("content", message["content"]))
    return [*found, *(("call", call_text(c)) for c in message.get("tool_calls", ()))]


def _content(turn: int, role: str, text: str, at: int) -> list[Part]:
    """The parts of a content: reasoning between tags is one of its own."""
    m = _REASONING.fullmatch(text) if role == "assistant" else None
    spans = [("content", 0, len(text))]
    if m is not None:
        spans = [("reasoning", *m.span(2)), ("content", *m.span(3))]
    return [Part(turn, role, k, at + s, at + e) for k, s, e in spans if text[s:e].strip()]
