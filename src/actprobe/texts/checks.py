"""What a usable dataset looks like; every message names dataset, file, row, and what was expected.

Rows are counted from 1 and the header of a table is not a row.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actprobe.config import nearest
from actprobe.errors import BadInput


@dataclass(frozen=True)
class Place:
    """Where values stand. `rows`: number in the file, from 0, of each row still in use."""

    dataset: str
    file: str
    rows: Sequence[int] = ()

    def bad(self, problem: str, at: Sequence[int] = ()) -> BadInput:
        """The error to raise; `at` holds the positions in `rows` of all rows with this problem."""
        where = f"row {self.rows[at[0]] + 1}: " if at else ""
        others = f" ({len(at)} such rows)" if len(at) > 1 else ""
        return BadInput(f"dataset {self.dataset}, {self.file}: {where}{problem}{others}")


def require_columns(wanted: Mapping[str, str], there: Sequence[str], place: Place) -> None:
    """Raise BadInput unless all `wanted` columns (config key -> column) are `there`."""
    for key, column in wanted.items():
        if column not in there:
            raise place.bad(
                f"no column {column!r} (config key `{key}`) among "
                f"{', '.join(map(repr, there))}; {nearest(column, there)}"
            )


def is_missing(value: Any) -> bool:
    """True for None and NaN."""
    return value is None or value != value


def cell_text(value: Any) -> str | None:
    """A cell as text; None for a missing or empty one."""
    return None if is_missing(value) or value == "" else str(value)


def keep_rows(
    columns: Mapping[str, list[Any]], keep: Mapping[str, Sequence[str | None]], place: Place
) -> tuple[dict[str, list[Any]], Place]:
    """The columns and place of the rows in which every column of `keep` has a wanted value."""
    if not place.rows:
        raise place.bad("no rows; expected at least one below the header")
    chosen: Sequence[int] = place.rows
    for column, values in keep.items():
        before = chosen
        chosen = [i for i in chosen if cell_text(columns[column][i]) in values]
        if not chosen:
            seen = sorted({str(cell_text(columns[column][i])) for i in before})
            more = ", …" if len(seen) > 8 else ""
            raise place.bad(
                f"no row with {column} in {list(values)} (config key `keep`); "
                f"its values are {', '.join(seen[:8])}{more}"
            )
    kept = {name: [column[i] for i in chosen] for name, column in columns.items()}
    return kept, replace(place, rows=chosen)


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
        else:
            try:
                digests.append(hashlib.sha256(text.encode()).hexdigest())
            except UnicodeEncodeError:
                problems["the text holds half a surrogate pair; expected valid Unicode"].append(i)
    if problems:
        raise place.bad(*next(iter(problems.items())))
    return digests


def check_ids(values: Sequence[Any], place: Place) -> list[str]:
    """The ids as strings; raises BadInput for a missing one and for two that are equal."""
    ids = [cell_text(v) for v in values]
    if None in ids:
        raise place.bad(
            "the id is missing; expected one in every row",
            [i for i, v in enumerate(ids) if v is None],
        )
    first: dict[str | None, int] = {}
    for i, v in enumerate(ids):
        if first.setdefault(v, i) != i:
            raise place.bad(
                f"the id {v!r} is also that of row {place.rows[first[v]] + 1}; "
                "expected different ids",
                [i],
            )
    return [v for v in ids if v is not None]


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
