"""The part of the page about single rows: those that the headline's probe gets most wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.report.headlines import MANY_PROTOCOLS
from actprobe.results import views
from actprobe.results.select import best_by_validation
from actprobe.results.tables import TASK

_DATASETS, _ROWS = 24, 10
_CUT, _WHOLE = 300, 20_000  # letters of a text at first sight, and when it is opened
_FIT = ["key", "condition", "seed", "method", "k"]


def part(errors: pd.DataFrame | None, table: pd.DataFrame) -> dict[str, Any] | None:
    """Tables of the worst errors of each dataset and label, by the probe that the headline names.

    errors: of `results.rows.errors`; table: the tidy table of texts. Of several seeds the first is told.
    None where no chosen fit kept its scores, or none is wrong.
    """
    if errors is None or errors.empty:
        return None
    found = []
    for _, fit in fits(table).iterrows():
        if len(own := of_fit(errors, fit, "task")):
            found.append(_table(own.head(_ROWS), fit))
    if not found:
        return None
    more = len(found) - _DATASETS
    words = f"{views.count(more, 'dataset')} more: see errors.csv." if more > 0 else ""
    return {"tables": found[:_DATASETS], "more": words}


def of_fit(rows: pd.DataFrame, fit: pd.Series, label: str) -> pd.DataFrame:
    """The rows about one fit; label: the column that names its class."""
    rows = rows[rows["key"].eq(fit["key"]) & rows[label].eq(fit["label"])]
    for c in _FIT:
        rows = rows[rows[c].isna() if pd.isna(fit[c]) else rows[c].eq(fit[c])]
    return rows


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """A row of the tidy table for each dataset and label: its fit by the headline's probe."""
    rows = views.usual(table[~views.control(table)])
    chosen = [
        best_by_validation(views.of_part(rows, part)) for part in views.parts(rows)[:MANY_PROTOCOLS]
    ]
    if not chosen:
        return table.iloc[:0]
    index = pd.concat(chosen).drop_duplicates(TASK).index
    return table.loc[index]  # `usual` drops conditions that are no scale


def _table(rows: pd.DataFrame, fit: pd.Series) -> pages.Table:
    words = ["text"] if (rows["text"] != "").any() else []
    columns: dict[str, pages.Cell] = {"id": "id"}
    columns |= {"text": _text} if words else {}
    columns |= {"label": "label", "prediction": "prediction"}
    columns |= {
        "score": pages.of_number("score", ".4g"),
        "margin": pages.of_number("margin", ".3g"),
    }
    named = views.named(fit.to_frame().T).iloc[0]
    tested = rows["collection"].iloc[0]
    where = "" if tested == fit["dataset"] else f", tested on {tested}"
    title = (
        f"{views.tasks(fit.to_frame().T).iloc[0]}{where}: {named['probe']} on "
        f"{views.place_name(fit)} ({fit['protocol']}, seed {fit['seed']})"
    )
    made = pages.table(rows, columns, 1, title=title, wrap=words)
    assert made is not None, "a dataset without errors has no table"
    return made


def _text(r: Mapping[str, Any]) -> Any:
    """A text as a cell: the beginning of a long one, and the whole to open."""
    text = r["text"]
    if len(text) <= _CUT:
        return text
    whole = text if len(text) <= _WHOLE else f"{text[:_WHOLE]} … (errors.csv has the rest)"
    return {"text": f"{text[:_CUT].rstrip()} …", "whole": whole}
