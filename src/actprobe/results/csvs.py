"""Result tables as CSV files that spreadsheets open without running what is in them.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, wherever the text came from:
names of classes, questions, reasons. So text that begins like one, and is no plain number, gets an
apostrophe before it. `read` takes it away again, and so gives back what was written.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
# The wide signs are those of East Asian keyboards; a tab or line break before a sign hides it.
_FORMULA = re.compile(rf"'*(?!{_NUMBER}\Z)[=+\-@\t\r\n＝＋－＠]")


def write(table: pd.DataFrame, path: str | Path, float_format: str | None = None) -> None:
    """Write a table; floats as the shortest text that reads back to the same number, or as said."""
    text = [c for c in table.columns if _is_text(table[c])]
    safe = table.assign(**{c: table[c].map(_harmless) for c in text}) if text else table
    # Python's csv module quotes no cell for a lone carriage return, and readers break rows there.
    returns = any(safe[c].astype("str").str.contains("\r", regex=False).any() for c in text)
    safe.rename(columns=_harmless).to_csv(
        path,
        index=False,
        lineterminator="\n",
        float_format=float_format,
        quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL,
    )


def read(path: str | Path, text: Collection[str] = ()) -> pd.DataFrame:
    """A table that `write` wrote: `text` columns as strings, "" where a cell is empty; the others as
    numbers or booleans, NaN where it is empty."""
    names = pd.read_csv(path, nrows=0).columns
    of_text = {c for c in names if _plain(c) in text}
    missing = {c: [""] for c in names if c not in of_text}
    table = pd.read_csv(
        path, dtype=dict.fromkeys(of_text, "str"), keep_default_na=False, na_values=missing
    )
    for c in table.columns[[_is_text(table[c]) for c in table.columns]]:
        cells = table[c].map(_plain)
        table[c] = cells.astype("str") if c in of_text else cells
    return table.rename(columns=_plain)


def _is_text(column: pd.Series) -> bool:
    return column.dtype == "str" or column.dtype == object


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _plain(cell: Any) -> Any:
    quoted = isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell)
    return cell[1:] if quoted else cell
