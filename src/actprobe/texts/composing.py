"""Chats put together from the columns of a file, as `messages`, `alpaca` and `tools` say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe.texts import forms, templates
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed, Place, Problems, check_texts, field_texts
from actprobe.texts.records import ChatSpec, Message, Messages, TextSpec


@dataclass(frozen=True)
class Composed:
    """The chats of a dataset.

    raws: the file's object of each message, {} for a message of a template; first: the number of the
    first message that comes from the file's own list.
    """

    chats: list[Chat]
    raws: list[list[Mapping[str, Any]]]
    first: list[int]


def compose(
    columns: Mapping[str, Sequence[Any]],
    spec: TextSpec,
    answers: Sequence[str] | None,
    place: Place,
) -> Composed:
    """The chat of each row.

    answers: what {answer} stands for in contrastive pairs. Raises BadInput naming the rows that are
    no chats.
    """
    assert spec.chat is not None
    chat, n = spec.chat, len(place.rows)
    filled = [
        fill(item.template, columns, spec.text, answers, place)
        if isinstance(item, Message)
        else None
        for item in chat.items
    ]
    nulls = spec.format == "parquet"
    problems = Problems(place)
    made = Composed([], [], [])
    for i in range(n):
        with problems.of(i):
            _add(made, i, chat, columns, filled, nulls, spec.prompts)
    problems.throw()
    return made


def _add(
    made: Composed,
    i: int,
    chat: ChatSpec,
    columns: Mapping[str, Sequence[Any]],
    filled: Sequence[list[str] | None],
    nulls: bool,
    prompts: bool,
) -> None:
    """Put the chat of row i together."""

    def cell(column: str) -> Any:
        value = columns[column][i]
        return forms.without_null(value) if nulls else value

    messages: list[Mapping[str, Any]] = []
    raws: list[Mapping[str, Any]] = []
    found: list[Mapping[str, Any]]
    raw: list[Mapping[str, Any]]
    first = 0
    for item, texts in zip(chat.items, filled, strict=True):
        if isinstance(item, Message):
            assert texts is not None
            if item.role in ("system", "developer") and not texts[i].strip():
                continue  # this row has none
            message = {"role": item.role, "content": texts[i]}
            found, raw = [forms.message(message, len(messages), {})], [{}]
        elif isinstance(item, Messages):
            first = len(messages)
            found, raw = forms.messages(cell(item.column), chat.roles)
        else:
            found = forms.alpaca({k: cell(c) for k, c in item.columns.items()})
            raw = [{}] * len(found)
        messages += found
        raws += raw
    tools = forms.tools(cell(chat.tools)) if chat.tools is not None else None
    if prompts and messages[-1]["role"] == "assistant":
        raise Malformed(
            "the chat ends with the assistant, and waits for no answer (config key `generate`); leave "
            "its last message out"
        )
    one = Chat(messages, tools)
    try:
        assert one.digest
    except UnicodeEncodeError:
        raise Malformed("the chat holds half a surrogate pair; expected valid Unicode") from None
    made.chats.append(one)
    made.raws.append(raws)
    made.first.append(first)


def fill(
    template: str,
    columns: Mapping[str, Sequence[Any]],
    text: str,
    answers: Sequence[str] | None,
    place: Place,
) -> list[str]:
    """A template for each row, the columns put in.

    text: the column that {text} stands for, in which every row must have a text.
    """
    own = [] if answers is None else [templates.ANSWER]
    values: dict[str, Sequence[str]] = {}
    for field, column in templates.columns_of([template], text, own).items():
        if field == templates.TEXT:
            check_texts(columns[column], place)
            values[field] = columns[column]
        else:
            values[field] = field_texts(columns[column], column, place)
    if answers is not None:
        values[templates.ANSWER] = answers
    return templates.fill(template, values, len(place.rows))
