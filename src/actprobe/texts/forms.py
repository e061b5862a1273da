"""The forms in which files hold chats: messages of OpenAI and Hugging Face, ShareGPT, Alpaca.

What is wrong with a chat raises `Malformed`, whose words name the message, counted from 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actprobe.texts.chats import ROLES
from actprobe.texts.checks import Malformed
from actprobe.texts.objects import decode
from actprobe.texts.values import is_missing, listed, shown

Message = dict[str, Any]

# Other names of the roles, as ShareGPT files and models' own formats have them.
_ALIASES = {
    "human": "user", "prompter": "user",
    "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant",
    "chatgpt": "assistant", "function_call": "assistant",
    "function": "tool", "observation": "tool", "ipython": "tool", "tool_response": "tool",
}  # fmt: skip
_REASONING = ("reasoning_content", "reasoning", "thinking")


def messages(value: Any, roles: Mapping[str, str]) -> tuple[list[Any], list[Any]]:
    """The messages of a cell, and the objects that stand for them in the file.

    value: a list of objects, or the JSON text of one; roles: the file's own names of roles. Lists
    of `role` and `content` and of `from` and `value` (ShareGPT) are known by their keys.
    """
    found = parsed(value, "messages")
    if isinstance(found, Mapping) and len(found) == 1:
        (found,) = found.values()  # {"messages": [...]}
    if not isinstance(found, list):
        raise Malformed(f"the messages are {_kind(found)}; expected a list of messages")
    if not found:
        raise Malformed("a chat without messages; expected one at least")
    made = [message(m, n, roles) for n, m in enumerate(found)]
    return made, found


def message(raw: Any, n: int, roles: Mapping[str, str]) -> Message:
    """One message, number n of its chat."""
    if not isinstance(raw, Mapping):
        raise Malformed(f"message {n} is {_kind(raw)}; expected an object with role and content")
    share = "role" not in raw and "from" in raw
    said = raw["from"] if share else raw.get("role")
    role = _role(said, n, roles)
    content = _content(raw.get("value" if share else "content"), role, n)
    calls = _calls(raw, n)
    if said == "function_call" and content is not None and (own := _call_in(content, n)):
        content, calls = None, own
    reasoning = next((raw[k] for k in _REASONING if isinstance(raw.get(k), str) and raw[k]), None)
    made: Message = {"role": role}
    if content is not None:
        made["content"] = content
    if reasoning is not None and role == "assistant":
        made["reasoning_content"] = reasoning
    if calls:
        made["tool_calls"] = calls
    made |= {k: raw[k] for k in ("tool_call_id", "name") if isinstance(raw.get(k), str) and raw[k]}
    said_something = (content or "").strip() or calls or (reasoning or "").strip()
    if role in ("user", "assistant") and not said_something:
        raise Malformed(f"message {n} ({role}) is empty; expected some content")
    return made


def tools(value: Any) -> list[Any] | None:
    """The definitions of tools in a cell: a list of objects, or the JSON text of one."""
    found = None if is_missing(value) or value == "" else parsed(value, "tools")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(t, Mapping) for t in found):
        raise Malformed(f"the tools are {_kind(found)}; expected a list of objects")
    return found or None


def alpaca(row: Mapping[str, Any]) -> list[Any]:
    """The messages of a row in the form of Alpaca.

    row: `instruction`, `input`, `output`, `system` and `history` (a list of [user, assistant]), None
    for those that there are not. The input follows the instruction after an empty line.
    """
    text = {k: _optional(row.get(k), k) for k in ("instruction", "input", "output", "system")}
    if not text["instruction"]:
        raise Malformed("the instruction is missing or empty")
    found: list[Message] = []
    if text["system"]:
        found.append({"role": "system", "content": text["system"]})
    history = row.get("history")
    for pair in [] if is_missing(history) or history == "" else parsed(history, "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Malformed(f"the history holds {shown(pair)}; expected [user, assistant]")
        found += [
            {"role": r, "content": c} for r, c in zip(("user", "assistant"), pair, strict=True)
        ]
    asked = "\n\n".join(t for t in (text["instruction"], text["input"]) if t)
    found.append({"role": "user", "content": asked})
    if text["output"]:
        found.append({"role": "assistant", "content": text["output"]})
    return [message(m, n, {}) for n, m in enumerate(found)]


def plain_json(value: Any, what: str) -> Any:
    """A value of JSON as it is. Raises Malformed for NaN, dates and what else JSON does not have."""
    if value is None or isinstance(value, (bool, int)) or type(value) is str:
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    if isinstance(value, list):
        return [plain_json(v, what) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        if twice := getattr(value, "keys_twice", ()):
            raise Malformed(f"{what} the key {listed(sorted(twice))} twice in one object")
        return {k: plain_json(v, what) for k, v in value.items()}
    raise Malformed(f"{what} {shown(value)}, which JSON does not have")


def without_null(value: Any) -> Any:
    """An object without the keys whose value is null: Parquet gives all objects of a column the
    same keys."""
    if isinstance(value, Mapping):
        return {k: without_null(v) for k, v in value.items() if v is not None}
    return [without_null(v) for v in value] if isinstance(value, list) else value


def parsed(value: Any, what: str) -> Any:
    """A list or an object of a cell, or of the JSON text in it."""
    if is_missing(value):
        raise Malformed(f"the {what} are missing")
    if not isinstance(value, str):
        return plain_json(value, f"the {what} hold")
    try:
        found = decode(value)
    except (ValueError, RecursionError) as e:
        raise Malformed(f"the {what} are a text that is no JSON ({e}); expected a list") from None
    return plain_json(found, f"the {what} hold")


def _role(said: Any, n: int, roles: Mapping[str, str]) -> str:
    if not isinstance(said, str) or not said:
        raise Malformed(f"message {n} has no role; expected one of {', '.join(ROLES)}")
    role = roles.get(said) or _ALIASES.get(said.lower(), said.lower())
    if role not in ROLES:
        raise Malformed(
            f"message {n} has the role {shown(said)}; expected one of {', '.join(ROLES)}, or write "
            f"`roles: {{{said}: user}}`"
        )
    return role


def _content(value: Any, role: str, n: int) -> str | None:
    if is_missing(value):
        return None
    if type(value) is str:
        return value
    if isinstance(value, list) and all(isinstance(p, Mapping) and "type" in p for p in value):
        return "".join(_text_of(p, n) for p in value)
    if role == "tool" and isinstance(value, (Mapping, list)):
        return json.dumps(value, ensure_ascii=False)
    raise Malformed(f"the content of message {n} is {_kind(value)}; expected a string")


def _text_of(part: Mapping[str, Any], n: int) -> str:
    text = part.get("text")
    if part["type"] != "text" or not isinstance(text, str):
        raise Malformed(
            f"message {n} holds a part of type {shown(part['type'])}; only text is read"
        )
    return text


def _calls(raw: Mapping[str, Any], n: int) -> list[Message]:
    value = raw.get("tool_calls")
    if is_missing(value) and not is_missing(raw.get("function_call")):
        value = [raw["function_call"]]
    if is_missing(value) or value == "":
        return []
    found = parsed(value, f"tool calls of message {n}")
    if not isinstance(found, list):
        raise Malformed(f"the tool calls of message {n} are {_kind(found)}; expected a list")
    return [_call(c, n) for c in found]


def _call(raw: Any, n: int) -> Message:
    function = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Malformed(f"message {n}: a tool call without the name of a function: {shown(raw)}")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = _object_in(arguments)
    elif arguments is None:
        arguments = {}
    elif not isinstance(arguments, Mapping):
        raise Malformed(f"message {n}: the arguments of a tool call are {_kind(arguments)}")
    made: Message = {"id": raw["id"]} if isinstance(raw.get("id"), str) else {}
    return made | {
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _object_in(text: str) -> Any:
    """The object of a JSON text; the text where it is none, as models sometimes write."""
    try:
        found = plain_json(decode(text), "")
    except (ValueError, RecursionError, Malformed):
        return text
    return found if isinstance(found, dict) else text


def _call_in(content: str, n: int) -> list[Message]:
    """The calls that ShareGPT files hold as the text of a message; none where it is none."""
    try:
        found = plain_json(decode(content), "")
    except (ValueError, RecursionError, Malformed):
        return []
    calls = found if isinstance(found, list) else [found]
    named = all(isinstance(c, Mapping) and "name" in c for c in calls)
    return [_call(c, n) for c in calls] if named else []


def _optional(value: Any, what: str) -> str | None:
    if is_missing(value) or value == "":
        return None
    if type(value) is not str:
        raise Malformed(f"the {what} is {_kind(value)}; expected a string")
    return value


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "a list", str: "a string", bool: "a boolean", dict: "an object"}
    return names.get(type(value), "null" if value is None else f"of type {type(value).__name__}")
