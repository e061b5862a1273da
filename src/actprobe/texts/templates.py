"""Templates of a dataset: several columns become one text.

`{column}` stands for the column of that name, `{text}` for the one that the key `text` names;
`{{` and `}}` stand for braces. What is put in is not read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from actprobe.base.errors import ConfigError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
TEXT, ANSWER = "text", "answer"


def pieces(template: str, where: str = "template") -> list[tuple[str, str | None]]:
    """(the text before, the field) of each field in turn, and (the text at the end, None).

    Raises ConfigError for a brace that is neither a field's nor doubled.
    """
    found: list[tuple[str, str | None]] = []
    text, at = "", 0
    for m in _PIECE.finditer(template):
        text, at = text + template[at : m.start()], m.end()
        if m[1] is not None:
            found.append((text, m[1]))
            text = ""
        elif len(m[0]) == 2:
            text += m[0][0]
        else:
            raise ConfigError(
                f"{where}: {template!r}: a single {m[0]!r}; write {m[0] * 2!r} where the brace is "
                "text, {NAME} for a column"
            )
    return [*found, (text + template[at:], None)]


def fields(template: str, where: str = "template") -> list[str]:
    """The fields of a template, each once, in their order."""
    return list(dict.fromkeys(f for _, f in pieces(template, where) if f is not None))


def fill(template: str, columns: Mapping[str, Sequence[str]], n: int) -> list[str]:
    """The template for each of n rows; columns: field -> its text in each row."""
    parts = pieces(template)
    return ["".join(t + (columns[f][i] if f else "") for t, f in parts) for i in range(n)]


def starts(template: str, columns: Mapping[str, Sequence[str]], n: int) -> list[int]:
    """Where {text} begins in each filled template; columns: by the names of the file."""
    found = [0] * n
    for literal, field in pieces(template):
        if field == TEXT:
            return [at + len(literal) for at in found]
        if field is not None:
            found = [
                at + len(literal) + len(str(v)) for at, v in zip(found, columns[field], strict=True)
            ]
    return found


def taken_apart(template: str, text: str, answer: str = "") -> str:
    """The {text} that was put into a template once, with this answer.

    The whole text where the template holds other columns, whose length is not known.
    """
    parts = pieces(template)
    names = [f for _, f in parts if f]
    if names.count(TEXT) != 1 or not set(names) <= {TEXT, ANSWER}:
        return text
    before = after = 0
    seen = False
    for literal, field in parts:
        n = len(literal)
        if seen:
            after += n + (len(answer) if field == ANSWER else 0)
        else:
            before += n + (len(answer) if field == ANSWER else 0)
        seen |= field == TEXT
    return text[before : len(text) - after]


def columns_of(templates: Iterable[str], text: str, own: Iterable[str] = ()) -> dict[str, str]:
    """Field -> column of all fields of some templates.

    text: the column that {text} stands for; own: fields that are no columns.
    """
    names = dict.fromkeys(f for t in templates for f in fields(t))
    return {f: text if f == TEXT else f for f in names if f not in own}
