"""What a usable dataset looks like; every message names dataset, file, row, and what was expected.

Rows are counted from 0, as the ids of a dataset without ids are: row 0 is the first below the
header. Lines of a file are counted from 1, as editors do; a row's line is the one it begins in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.config import nearest
from actprobe.texts.values import EXACT, cell_text, is_missing, is_unicode, listed, meaning, shown

log = logging.getLogger(__name__)

_NAMES = (bool, int, float, str)  # types whose values can be ids, groups, …
_SPLITS = 100  # more different ones are no splits


@dataclass(frozen=True)
class Place:
    """Where values stand. `rows`: number in the file, from 0, of each row still in use; `lines`:
    the line in which each row of the file begins, empty where rows are no lines."""

    dataset: str
    file: str
    rows: Sequence[int] = ()
    lines: Sequence[int] = ()

    def row(self, i: int) -> str:
        """What messages call the row at position `i` of `rows`."""
        n = self.rows[i]
        return f"row {n} (line {self.lines[n]})" if self.lines else f"row {n} (counted from 0)"

    def bad(self, problem: str, at: Sequence[int] = ()) -> BadInput:
        """The error to raise; `at` holds the positions in `rows` of all rows with this problem."""
        where = f"{self.row(at[0])}: " if at else ""
        others = f" ({len(at)} such rows)" if len(at) > 1 else ""
        return BadInput(f"dataset {self.dataset}, {self.file}: {where}{problem}{others}")

    @contextlib.contextmanager
    def guard(self, what: str = "the file is not readable") -> Iterator[None]:
        """Raise whatever a library raises for this dataset's content as BadInput.

        What says nothing about the content passes as it is: no memory, and what the system says of
        its disks and servers (an OSError with a number; a library that dislikes content has none).
        """
        try:
            yield
        except (ActprobeError, MemoryError):
            raise
        except Exception as e:
            if isinstance(e, OSError) and e.errno is not None:
                raise
            log.debug("%s", what, exc_info=True)  # it may be a fault of this package
            remedy = "write it anew, for example as jsonl"
            raise self.bad(f"{what} ({remedy}): {type(e).__name__}: {e}") from e


class Malformed(Exception):
    """What is wrong with the value of one row, in words that do not name the row."""


class Problems:
    """The rows whose values are malformed, gathered so that all of them can be named.

    with problems.of(i):
        ...  # may raise Malformed
    problems.throw()
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._rows: dict[str, list[int]] = defaultdict(list)

    @contextlib.contextmanager
    def of(self, row: int) -> Iterator[None]:
        """Note a Malformed of the block as a problem of this row."""
        try:
            yield
        except Malformed as e:
            self._rows[str(e)].append(row)

    def throw(self) -> None:
        """Raise BadInput for the first problem, if there is any, saying how many rows have others."""
        if not self._rows:
            return
        first, *others = self._rows.items()
        n = sum(len(rows) for _, rows in others)
        raise self._place.bad(first[0] + (f"; {n} more rows cannot be used" if n else ""), first[1])


def require_columns(wanted: Mapping[str, str], there: Sequence[str], place: Place) -> None:
    """Raise BadInput unless each `wanted` column (config key -> column) is `there` once."""
    for key, column in wanted.items():
        found = [i for i, name in enumerate(there) if name == column]
        if not found:
            raise place.bad(
                f"no column {shown(column)} (config key `{key}`) among {listed(there, 12)}; "
                f"{_nearest_column(column, there)}"
            )
        if len(found) > 1:
            numbers = " and ".join(str(i + 1) for i in found)
            raise place.bad(
                f"columns {numbers} are both called {shown(column)} (config key `{key}`); "
                "rename one in the file"
            )


def _nearest_column(column: str, there: Sequence[str]) -> str:
    number = column.removeprefix("Unnamed: ")  # pandas' word for a column without a name
    if column != number and number in map(str, range(len(there))) and there[int(number)] == "":
        return 'that column has no name: write `""`'
    for name in there:
        if meaning(name.casefold()) == meaning(column.casefold()):
            return f"write `{json.dumps(name, ensure_ascii=False)}`"
    return nearest(column, there)


def field_texts(values: Sequence[Any], column: str, place: Place) -> list[str]:
    """A column's values as they are put into a template: strings, numbers and booleans.

    Raises BadInput for a missing value and for lists and objects; an empty string is a value.
    """
    problems = Problems(place)
    found = []
    for i, value in enumerate(values):
        with problems.of(i):
            if is_missing(value):
                raise Malformed(
                    f"column {shown(column)} has no value (config key `template`); expected a string "
                    "(`keep` and `where` leave rows out)"
                )
            if type(value) not in _NAMES:
                kind = type(value).__name__
                raise Malformed(f"column {shown(column)} holds a {kind}; expected a string")
            found.append(str(value))
    problems.throw()
    return found


def check_texts(values: Sequence[Any], place: Place) -> list[str]:
    """SHA-256 of each text's UTF-8 bytes; raises BadInput unless all are non-empty strings."""
    problems: dict[str, list[int]] = defaultdict(list)
    digests = []
    for i, text in enumerate(values):
        if is_missing(text):
            problems["the text is missing (null or NaN); expected a string"].append(i)
        elif not isinstance(text, str):
            problems[f"the text is of type {type(text).__name__}; expected a string"].append(i)
        elif not text.strip():
            what = "only white space" if text else "empty"
            problems[f"the text is {what}; expected a text"].append(i)
        elif not is_unicode(text):
            problems["the text holds half a surrogate pair; expected valid Unicode"].append(i)
        else:
            digests.append(hashlib.sha256(text.encode()).hexdigest())
    if problems:
        raise place.bad(*next(iter(problems.items())))
    return digests


def names(values: Sequence[Any], column: str, place: Place) -> list[str | None]:
    """A column of ids, groups, splits or pairs as text; None for a missing or empty cell.

    Values must be of one type (string, whole number, number or boolean), because 1, 1.0, true and
    "1" would otherwise be told apart, or not, by their type alone. Raises BadInput naming the row.
    """
    kind: type | None = None
    for i, value in enumerate(values):
        if is_missing(value) or value == "":
            continue
        found = type(value)
        problem = f"column {shown(column)} holds {shown(value)}"
        if found not in _NAMES:
            raise place.bad(f"{problem} of type {found.__name__}; expected a string", [i])
        if kind not in (None, found):
            types = " and ".join(sorted(t.__name__ for t in (kind, found) if t))
            raise place.bad(f"{problem}: values of the types {types}; expected one type", [i])
        if found is float and not abs(value) < EXACT:
            raise place.bad(
                f"{problem}, a floating-point number too large to be exact; expected a string", [i]
            )
        if found is str and not is_unicode(value):
            raise place.bad(f"{problem}, half a surrogate pair; expected valid Unicode", [i])
        kind = found
    return [cell_text(v) for v in values]


def check_ids(values: Sequence[str | None], place: Place) -> list[str]:
    """The ids; raises BadInput for a missing one and for two that are equal."""
    if None in values:
        raise place.bad(
            "the id is missing; expected one in every row",
            [i for i, v in enumerate(values) if v is None],
        )
    first: dict[str | None, int] = {}
    for i, v in enumerate(values):
        if first.setdefault(v, i) != i:
            raise place.bad(
                f"the id {shown(v)} is also that of {place.row(first[v])}; expected different ids",
                [i],
            )
    return [v for v in values if v is not None]


def check_spellings(values: Sequence[str | None], column: str, place: Place) -> None:
    """Raise BadInput where a column of a csv or tsv file spells one group, split or pair twice.

    1 and 1.0 are two spellings where all values are numbers, True and true where all are booleans;
    elsewhere they are names. "a" and "a " are two spellings everywhere.
    """
    first: dict[str, int] = {}
    for i, v in enumerate(values):
        if v is not None:
            first.setdefault(v, i)
    means = {v: meaning(v) for v in first}
    typed = {kind for kind, _ in means.values()} in ({"number"}, {"boolean"})
    known: dict[Any, str] = {}
    for v, i in first.items():
        other = known.setdefault(means[v] if typed else v.strip(), v)
        if other != v:
            raise place.bad(
                f"column {shown(column)} holds {shown(v)}, and {shown(other)} in "
                f"{place.row(first[other])}: two spellings of one name; expected one of them in the "
                "whole file (where they are two names: a json or jsonl file with strings)",
                [i],
            )


def check_splits(values: Sequence[str | None], column: str, place: Place) -> None:
    """Raise BadInput for a column that cannot be the splits of a dataset."""
    found = {v for v in values if v is not None}
    if len(found) > _SPLITS:
        raise place.bad(
            f"column {shown(column)} (config key `split`) has {len(found)} different values, such as "
            f"{listed(sorted(found), 3)}; expected the names of a few splits"
        )


def duplicates(texts: Sequence[str], labels: Sequence[int] | None) -> dict[str, int]:
    """How many rows repeat an earlier text, and how many stand in groups of conflicting labels.

    rows: n minus the number of distinct texts. conflicting: rows whose exact text occurs with more
    than one label.
    """
    counts = Counter(texts)
    seen: dict[str, set[int]] = defaultdict(set)
    for text, label in zip(texts, labels or (), strict=False):
        seen[text].add(label)
    return {
        "rows": len(texts) - len(counts),
        "conflicting": sum(counts[text] for text, found in seen.items() if len(found) > 1),
    }
