"""Tables of the page about what is claimed: comparisons, and choices by validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import Table, interval, number
from actprobe.results import scores, views
from actprobe.results.compare import claims

_PLACE = ("model", "site", "position")


def comparisons(table: pd.DataFrame) -> list[Table]:
    """A table per family: all the comparisons that are corrected together, and the controls.

    Of families that are too large the rows with the smallest p are shown.
    """
    control = views.control(table.assign(method=table["probe"]))
    shown = table[claims(table) | control]
    families = list(shown.groupby(["protocol", "setting", "metric"], sort=False))
    mixed = table["metric"].nunique() > 1
    most = max(pages.MANY // max(len(families), 1), 20)
    found = []
    for (protocol, setting, metric), rows in families:
        some = rows.loc[rows["p"].sort_values(kind="stable").index[:most]].sort_index()
        names = _names(rows)
        title = f"{protocol}, {setting}" + f", {scores.known(metric).label}" * mixed
        note = _family(rows, len(some))
        made = pages.table(some, names | _NUMBERS, len(names), title=title, note=note, of=len(rows))
        found += [made] if made else []
    return found


def _names(rows: pd.DataFrame) -> dict[str, pages.Cell]:
    """The headings that tell the comparisons apart; of places and collections those that occur."""
    named = {
        "collection": "dataset",
        **{c: c for c in _PLACE},
        "columns": "columns",
        "probe": "probe",
    }
    named |= {"SAE or source": "source", "reference": "reference", "on": "reference_source"}
    always = ("probe", "SAE or source", "reference")
    return {h: c for h, c in named.items() if h in always or (rows[c] != "").any()}


_NUMBERS: dict[str, pages.Cell] = {
    "pairs": lambda r: f"{r['n_pairs']:g}",
    "difference": lambda r: number(r["delta"], "+.4f"),
    "interval": lambda r: interval(r["ci_low"], r["ci_high"], "+.4f"),
    "wins / losses / ties": lambda r: f"{r['wins']:g} / {r['losses']:g} / {r['ties']:g}",
    "p": lambda r: number(r["p_holm"], ".2g"),
    "unseen": lambda r: number(r["delta_unseen"], "+.4f"),
}


def _family(rows: pd.DataFrame, shown: int) -> str:
    """What the p values of a family are corrected for, or why there are none."""
    n = rows["family"].dropna()
    notes = rows.loc[n.index if len(n) else rows.index, "p_note"]
    words = "No comparison has a p value."
    if len(n):
        words = f"The p values are corrected for {views.count(int(n.iloc[0]), 'comparison')}."
    if rows["p_holm"].isna().all() and (notes != "").any():
        words = f"{scores.upper(notes[notes != ''].iloc[0])}."
    return words + f" The {shown} with the smallest p are shown." * (shown < len(rows))


def quivers(table: pd.DataFrame) -> Table | None:
    """What choosing by validation reaches, with the band over tie orders."""

    def score(r: Mapping[str, Any]) -> str:
        return scores.known(r["metric"]).label

    place = [c for c in _PLACE if (table[c] != "").any()]
    columns: dict[str, pages.Cell] = {
        **{c: c for c in ("protocol", "setting", *place)},
        "score": score,
        "candidates": "candidates",
        "choices": lambda r: f"{r['n_choices']:g}",
        "mean": lambda r: f"{r['test_score']:.4f}",
        "interval": lambda r: interval(r["ci_low"], r["ci_high"], ".4f"),
        "tie band": lambda r: interval(r["tie_low"], r["tie_high"], ".4f"),
        "tied": lambda r: f"{r['n_tied']:g}",
        "SAE chosen": lambda r: f"{r['n_sae']:g}",
    }
    return pages.table(table, columns, labels=len(place) + 4)
