"""Tables in text: csv by RFC 4180, and tsv, whose quotes may be quotes or text.

The readers of the standard library and of pandas make something of a quote in the middle of a
cell, a quote that is never closed, a short row, a lone carriage return. Here each is an error with
its line. A line ends with LF or CRLF and with nothing else: NEL, U+2028 and form feeds are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.texts.checks import Place, require_columns
from actprobe.texts.values import shown

_LONE_CR = (
    "a carriage return without a line feed; a line ends with LF or CRLF, and as text the carriage "
    "return stands in a cell in double quotes"
)
_REMEDY = (
    "write the whole cell in double quotes and each quote in it twice, or `quotes: false` in the "
    "config where quotes are text"
)


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    quotes: True, a cell may be quoted by RFC 4180: it begins and ends with a double quote, doubles
    those inside, and may hold separators and line breaks; a quote anywhere else is an error. False,
    a quote is a character like others and every line is a row. None, as True where the whole file
    keeps those rules, else as False; an error where both would do and give different rows.
    given: the config names the separator; ending: ".zst" in a packed file, for messages.
    """

    separator: str
    quotes: bool | None = True
    given: bool = False
    ending: str = ""


@dataclass
class Table:
    """columns: column -> cells of all rows; lines: where each row begins; quoting: "rfc4180" where
    cells can be quoted, "none" where quotes are text; spans: the first line of the first row of
    several lines, 0 where every row is a line."""

    columns: dict[str, list[Any]]
    quoting: str
    lines: list[int] = field(default_factory=list)
    spans: int = 0


class Malformed(Exception):
    """A line that breaks the rules."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")


def read(text: str, dialect: Dialect, wanted: Mapping[str, str], place: Place) -> Table:
    """The `wanted` columns (config key -> column name) of a table with a header row.

    Cells are strings exactly as written. Empty lines are no rows. Raises BadInput with the line.
    """
    if dialect.quotes is not None or '"' not in text:
        return _read(text, dialect, wanted, place)
    quoted, plain = replace(dialect, quotes=True), replace(dialect, quotes=False)
    try:
        table = _read(text, quoted, wanted, place)
    except BadInput as e:
        try:
            return _read(text, plain, wanted, place)
        except BadInput as f:
            more = str(f).removeprefix(str(place.bad("")))
            raise BadInput(str(e) if str(e) == str(f) else f"{e} (quotes as text: {more})") from e
    if table.spans:
        try:
            rows = len(_read(text, plain, wanted, place).lines)
        except BadInput:
            return table
        raise place.bad(
            f"line {table.spans}: is this one text of several lines, or a row with a quote in its "
            f"text? Read the first way the file has {len(table.lines)} rows, the other way {rows}; "
            "write `quotes: true` for the first, `quotes: false` for the other"
        )
    return table


def records(text: str, dialect: Dialect, place: Place) -> Iterator[tuple[int, list[str]]]:
    """The cells of every row of a table one by one, with the line it begins in; first the header's.

    For tables that are too large to be held as text cell by cell. Raises BadInput with the line.
    """
    try:
        yield from ((line, cells) for line, cells, _ in _rows(text, dialect, place))
    except Malformed as e:
        raise place.bad(str(e)) from e


def _read(text: str, dialect: Dialect, wanted: Mapping[str, str], place: Place) -> Table:
    table = Table(
        {c: [] for c in wanted.values()}, "none" if dialect.quotes is False else "rfc4180"
    )
    try:
        rows = _rows(text, dialect, place)
        header = next(rows)[1]
        require_columns(wanted, header, place)
        columns = [(header.index(c), cells.append) for c, cells in table.columns.items()]
        for line, cells, lines in rows:
            for i, append in columns:
                append(cells[i])
            table.lines.append(line)
            if lines > 1 and not table.spans:
                table.spans = line
    except (Malformed, BadInput) as e:
        problem = e if isinstance(e, BadInput) else place.bad(str(e))
        raise BadInput(f"{problem}{_other_separator(text, dialect, wanted)}") from e
    return table


def _rows(text: str, dialect: Dialect, place: Place) -> Iterator[Record]:
    """The records, the header first, all of as many cells as it has."""
    found = (_plain if dialect.quotes is False else _quoted)(text, dialect.separator)
    first = next(found, (1, [], 1))
    header = first[1]
    if not header:
        raise place.bad("the file is empty; expected a header row")
    yield first
    for record in found:
        if len(record[1]) != len(header):
            raise Malformed(record[0], _wrong_number(record[1], header, dialect))
        yield record


def _wrong_number(cells: list[str], header: list[str], dialect: Dialect) -> str:
    found = f"{len(cells)} cell" + "s" * (len(cells) > 1)
    hint = ""
    if len(cells) > len(header) and dialect.quotes is not False:
        hint = f"; a text with {dialect.separator!r} in it stands in double quotes"
    return f"{found}, the header has {len(header)}{hint}"


def _other_separator(text: str, dialect: Dialect, wanted: Mapping[str, str]) -> str:
    """What to write in the config when the header has the wanted columns, separated otherwise."""
    header = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    for other in {",", "\t", ";", "|"} - {dialect.separator}:
        names = [cell.strip(' "') for cell in header.split(other)]
        if len(names) > 1 and set(wanted.values()) <= set(names):
            name = "tsv" if other == "\t" else "csv"
            words = f"`format: {name}{dialect.ending}`"
            if other in ";|":
                words += f" and `separator: {json.dumps(other)}`"
            elif dialect.given:
                words += " and no `separator`"
            return f"; the header's cells are separated by {other!r}: write {words}"
    return ""


Record = tuple[int, list[str], int]  # its first line, its cells, how many lines it takes


def _plain(text: str, separator: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line and line != "\r":
            yield number, _cells(line, separator, number), 1


def _cells(line: str, separator: str, number: int) -> list[str]:
    line = line.removesuffix("\r")
    if "\r" in line:
        raise Malformed(number, _LONE_CR)
    return line.split(separator)


def _quoted(text: str, separator: str) -> Iterator[Record]:
    # Possessive: a quote that is never closed must not be found closed at half of a doubled one.
    cell = rf'"([^"]*+(?:""[^"]*+)*+)"|([^"{re.escape(separator)}\r\n]*+)'
    match = re.compile(cell).match
    at, number = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if text.find('"', at, end) < 0:  # most lines, read several times as fast
            if line := text[at:end].removesuffix("\r"):
                yield number, _cells(line, separator, number), 1
            at, number = end + 1, number + 1
        else:
            cells, after = _record(text, at, separator, match, number)
            lines = text.count("\n", at, after) + (after == len(text) and text[-1] != "\n")
            yield number, cells, lines
            at, number = after, number + lines


def _record(
    text: str, start: int, separator: str, match: Callable[[str, int], Any], number: int
) -> tuple[list[str], int]:
    """The cells of the record that begins at `start`, and where the next one begins."""
    at, cells = start, []
    while True:
        found = match(text, at)
        quoted, cell = found.groups()
        cells.append(cell if quoted is None else quoted.replace('""', '"'))
        opened, at = at, found.end()
        if text.startswith(separator, at):
            at += 1
        elif at == len(text) or text[at] == "\n":
            return cells, min(at + 1, len(text))
        elif text.startswith("\r\n", at) or text[at:] == "\r":
            return cells, min(at + 2, len(text))
        else:
            line = number + text.count("\n", start, opened)
            raise Malformed(line, _problem(text[at], quoted, at == opened))


def _problem(found: str, quoted: str | None, at_once: bool) -> str:
    """What is wrong with a cell that `found` follows; at_once: the cell would begin with it."""
    if quoted is not None:
        return f"{found!r} after the closing quote of the cell {shown(quoted)}; {_REMEDY}"
    if found == "\r":
        return _LONE_CR
    if at_once:
        return f"a quote that is never closed; {_REMEDY}"
    return f"a quote in a cell that does not begin with one; {_REMEDY}"
