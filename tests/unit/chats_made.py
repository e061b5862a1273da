"""Conversations with systems, tools, calls and reasoning, and an oracle of who says which character."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from actprobe.models.segments import NO_TURN, PART, ROLE, Segment
from actprobe.texts.chats import Chat, call_text

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
_SIGNS = [
    "é",
    "漢字",
    "😀",
    '"quoted"',
    "a\\b",
    "<b>",
    "{x}",
    "\n",
    "  two  spaces",
    "it's",
    "&amp;",
]
NOBODY = (0, NO_TURN, 0)


def conversation(
    seed: int, system: bool = True, tools: bool = True, reasoning: bool = False
) -> Chat:
    """A random conversation; what its messages say is different in each of them.

    system, tools, reasoning: whether it may have any.
    """
    rng = random.Random(seed)

    def words(what: str) -> str:
        found = [f"{what}w{i}" for i in range(rng.randint(1, 4))]
        found.insert(rng.randint(1, len(found)), rng.choice(_SIGNS))
        return " ".join(found) + f" {what}end"

    messages: list[dict[str, Any]] = []
    offered = tools and rng.random() < 0.5
    if system and rng.random() < 0.5:
        messages.append({"role": "system", "content": words("sys")})
    for turn in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": words(f"u{turn}")})
        if offered and rng.random() < 0.5:
            call = {"name": "look_up", "arguments": {"word": f"arg{turn}", "n": turn}}
            messages.append(
                {"role": "assistant", "content": "",
                 "tool_calls": [{"id": f"call{turn:05d}", "type": "function", "function": call}]}
            )  # fmt: skip
            answer = {
                "role": "tool",
                "content": words(f"t{turn}"),
                "tool_call_id": f"call{turn:05d}",
            }
            messages.append(answer | {"name": "look_up"})
        said = {"role": "assistant", "content": words(f"a{turn}")}
        if reasoning and rng.random() < 0.5:
            said["reasoning_content"] = words(f"r{turn}")
        messages.append(said)
    if rng.random() < 0.3:
        messages.append({"role": "user", "content": words("last")})
    return Chat(messages, [TOOL] if offered else None)


def expected(chat: Chat, string: str) -> list[tuple[int, int, int] | None]:
    """Who says each character of a rendered chat, found by searching for what is said.

    None for characters of calls of tools, which templates write in ways of their own.
    """
    found: list[tuple[int, int, int] | None] = [NOBODY] * len(string)
    for part in chat.parts:
        text = chat.text[part.start : part.end]
        if part.kind == "call":
            continue
        shown = next((t for t in _spellings(text) if t in string), None)
        if shown is None:
            assert part.kind == "reasoning", (text, string)
            continue
        assert string.count(shown) == 1, shown
        at = string.index(shown)
        found[at : at + len(shown)] = [(ROLE[part.role], part.turn, PART[part.kind])] * len(shown)
    return found


def _spellings(text: str) -> Iterator[str]:
    for shown in (text, text.strip()):
        yield shown
        yield json.dumps(shown, ensure_ascii=False)[1:-1]


def check_segments(chat: Chat, string: str, segments: list[Segment]) -> None:
    """Assert that segments say who says which character, as `expected` does."""
    got: list[tuple[int, int, int]] = [NOBODY] * len(string)
    for s in segments:
        got[s.start : s.end] = [(s.role, s.turn, s.part)] * (s.end - s.start)
    calls = {p.turn: chat.text[p.start : p.end] for p in chat.parts if p.kind == "call"}
    seen = set()
    for s in segments:
        if s.part == PART["call"]:
            seen.add(s.turn)
            written = string[s.start : s.end]
            assert (
                written.startswith("look_up")
                and f"arg{calls[s.turn].split('arg')[1][0]}" in written
            )
        else:
            assert (
                chat.text[s.at : s.at + s.n] in (string[s.start : s.end],) or s.n != s.end - s.start
            )
    assert seen == set(calls)
    wanted = expected(chat, string)
    for i, (mine, right) in enumerate(zip(got, wanted, strict=True)):
        if mine[2] == PART["call"]:
            assert right == NOBODY  # a call holds nothing that somebody else says
        else:
            assert mine == right, (string[max(0, i - 30) : i], string[i : i + 30], mine, right)


def calls_of(chat: Chat) -> list[str]:
    return [call_text(c) for m in chat.messages for c in m.get("tool_calls", ())]
