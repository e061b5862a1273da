"""What the rooms' HTML pages share: templates, and tables with their numbers as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

MANY = 400  # rows of a table that is also there as a file


@dataclass(frozen=True)
class Table:
    """A printed table. The first `labels` columns are text and tell the rows apart.

    rows: cells of each, a text or a mapping with `text` and perhaps `small` (a line below), `whole` (a
    long text to open) and `css`.
    title, note: what stands above it. wrap: columns of long text. of: rows there are, where not all
    are shown. sortable: by a click on a heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    labels: int
    title: str = ""
    note: str = ""
    wrap: Sequence[str] = ()
    of: int = 0
    sortable: bool = True


# Control characters, marks that turn the direction of what follows, and what is no character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def shown(value: Any) -> Any:
    """A value as a page shows it: what cannot be seen in a text becomes a sign for it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("\ufffd", value)
    return value


def template(package: str, name: str) -> jinja2.Template:
    """A template that lies in a package, or here: values are escaped, and a name it does not get is an
    error."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("actprobe.base", ".")]
        ),
        autoescape=True,
        finalize=shown,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def number(value: Any, form: str = ".3f") -> str:
    """A number as text, or nothing where there is none."""
    return "" if pd.isna(value) else format(value, form)


def interval(low: Any, high: Any, form: str = ".3f", between: str = " … ") -> str:
    """Both ends of an interval, or nothing where it is not known."""
    return "" if pd.isna(low) else f"{low:{form}}{between}{high:{form}}"


Cell = str | Callable[[Mapping[str, Any]], Any]  # a column's name, or what makes the cell of a row


def of_number(column: str, form: str = ".3f") -> Cell:
    """The cells of a column of numbers."""
    return lambda r: number(r[column], form)


def table(
    rows: pd.DataFrame, columns: Mapping[str, Cell], labels: int, most: int = MANY, **about: Any
) -> Table | None:
    """The first `most` rows of a frame as a printed table, None of no rows.

    columns: heading -> cell; about: the fields of `Table`.
    """
    if rows.empty:
        return None
    cells = [
        [str(r[c]) if isinstance(c, str) else c(r) for c in columns.values()]
        for r in rows.head(most).to_dict("records")
    ]
    return Table([*columns], cells, labels, **{"of": len(rows)} | about)
