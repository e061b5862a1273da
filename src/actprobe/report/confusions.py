"""The part of the page about classes that are taken for one another."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import Table
from actprobe.results import confusion

_PAIRS = 12  # of one collection
_COLLECTIONS = 8


def named(cell: Mapping[str, str]) -> list[str]:
    """What tells a cell of a confusion table apart: no empty part, usual setting, or metric, and nothing
    that the source says."""
    own = f"{cell['model']}/{cell['site']}.{cell['position']}"
    columns = ["protocol", "setting", "condition", "dataset", "label", "source"]
    columns += [] if cell["source"] == own else ["model", "site", "position"]
    parts = [cell[c] for c in [*columns, "columns", "method"] if cell[c] not in ("", "normal")]
    return [*dict.fromkeys(parts), *([] if pd.isna(cell["k"]) else [f"k = {cell['k']}"])]


def mistakes(table: pd.DataFrame) -> list[Table]:
    """The commonest mistakes of each collection's best probe. table: of `confusion.confusions`."""
    columns: dict[str, pages.Cell] = {
        "true": "true",
        "predicted": "predicted",
        "rows": lambda r: f"{r['n']:g}",
        "of the true class": lambda r: f"{r['share']:.1%}",
    }
    found = [
        pages.table(confusion.mistakes(lines), columns, 2, _PAIRS, title=", ".join(named(cell)))
        for cell, lines in confusion.best(table)[:_COLLECTIONS]
    ]
    return [t for t in found if t]
