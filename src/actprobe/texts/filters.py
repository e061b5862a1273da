"""Which rows of a file are used: `keep` lists values, `where` compares."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actprobe.texts.checks import Place
from actprobe.texts.conditions import Condition, conditions
from actprobe.texts.records import TextSpec
from actprobe.texts.values import cell_text, listed, meaning, shown

Columns = dict[str, list[Any]]


def taken(
    columns: Mapping[str, list[Any]], rows: Sequence[int], place: Place
) -> tuple[Columns, Place]:
    """The columns and the place of some rows, given by their positions."""
    kept = {name: [column[i] for i in rows] for name, column in columns.items()}
    return kept, replace(place, rows=[place.rows[i] for i in rows])


def chosen(columns: Mapping[str, list[Any]], spec: TextSpec, place: Place) -> tuple[Columns, Place]:
    """The columns and place of the rows that `keep` and `where` of a spec let through.

    Raises BadInput where none is left, and as `_kept` and `_fulfilling` do.
    """
    if not place.rows:
        raise place.bad("no rows; expected at least one below the header")
    rows: Sequence[int] = range(len(place.rows))
    for column, values in spec.keep.items():
        rows = _kept(columns[column], column, values, rows, place)
    for column, written in spec.where.items():
        for condition in conditions(written):
            rows = _fulfilling(columns[column], column, condition, rows, place)
    return taken(columns, rows, place)


def _kept(
    values: Sequence[Any],
    column: str,
    wanted: Sequence[str | None],
    rows: Sequence[int],
    place: Place,
) -> list[int]:
    """The rows in which a column has a wanted value.

    A wanted value means the cells that spell the same boolean, number or word. Raises BadInput for
    one that the file spells in several ways which are not all wanted: which of them are meant is
    for the config to say.
    """
    cells = [cell_text(v) for v in values]
    there = list(dict.fromkeys(cells[i] for i in rows))
    spelled = _spelled(column, wanted, there, place)
    found = [i for i in rows if cells[i] in spelled]
    if not found:
        given = ", ".join("null" if v is None else shown(v) for v in wanted)
        raise place.bad(
            f"no row with {column} in [{given}] (config key `keep`); its values are {listed(there)}"
        )
    return found


def _spelled(
    column: str, values: Sequence[str | None], there: Sequence[str | None], place: Place
) -> set[str | None]:
    """The cell texts among `there` that the wanted `values` stand for."""
    spellings: dict[Any, list[str]] = defaultdict(list)
    for cell in there:
        if cell is not None:
            spellings[meaning(cell)].append(cell)
    found: set[str | None] = set(values) & {None}
    for value in (v for v in values if v is not None):
        same = spellings[meaning(value)]
        if len(same) > 1 and not set(same) <= set(values):
            both = json.dumps(same, ensure_ascii=False)
            raise place.bad(
                f"column {shown(column)} spells {shown(value)} in {len(same)} ways: {listed(same)}; "
                f"to keep them all write `keep: {{{column}: {both}}}`"
            )
        found.update(same)
    return found


def _fulfilling(
    values: Sequence[Any], column: str, condition: Condition, rows: Sequence[int], place: Place
) -> list[int]:
    """The rows whose cell fulfils a condition; a cell without a value fulfils none.

    Raises BadInput for a cell that is no number where numbers are compared.
    """
    cells = {i: text for i in rows if (text := cell_text(values[i])) is not None}
    if condition.numeric:
        words = [i for i, text in cells.items() if meaning(text)[0] != "number"]
        if words:
            raise place.bad(
                f"column {shown(column)} holds {shown(cells[words[0]])}; expected a number (config "
                f"key `where`: {condition})",
                words,
            )
    found = [i for i, text in cells.items() if condition.holds(text)]
    if not found:
        raise place.bad(
            f"no row with {column} {condition} (config key `where`); its values are "
            f"{listed(list(dict.fromkeys(cells.values())))}"
        )
    return found
