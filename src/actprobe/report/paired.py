"""The part of the page that sets the headline's probes against others on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import number
from actprobe.report import errors
from actprobe.results import views
from actprobe.results.paired import BASELINE, PLACE

_ENOUGH = 10  # allowed false alarms from which a resampled threshold is smooth


def part(pairs: pd.DataFrame | None, table: pd.DataFrame) -> dict[str, Any] | None:
    """Sentences and a table of the probe that the headline names, of the first seed.

    pairs: of `results.paired.table`; table: the tidy table of texts. None where no chosen fit has one.
    """
    if pairs is None or pairs.empty:
        return None
    chosen = [
        _first(errors.of_fit(pairs, fit, "label")) for _, fit in errors.fits(table).iterrows()
    ]
    rows = pd.concat([pairs.iloc[:0], *chosen])
    if rows.empty:
        return None
    rows = views.named(rows).assign(task=views.tasks(rows))
    facts = [_fact(rows, a) for a in (BASELINE, PLACE) if a in set(rows["against"])]
    fewest = int((rows["allowed"] * rows["negatives"]).min())
    if fewest < _ENOUGH:
        facts.append(
            f"The rate lets through {fewest} of the fewest test rows of class 0. Below {_ENOUGH} the "
            "intervals of what is found are too narrow: one row moves the threshold."
        )
    return {"facts": facts, "table": _table(rows)}


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["seed"].eq(rows["seed"].min())] if len(rows) else rows


def _fact(rows: pd.DataFrame, against: str) -> str:
    """How many pairs differ by more than their intervals."""
    own = rows[rows["against"] == against]
    words = [
        f"{name}: better in {int((own[f'{of}_low'] > 0).sum())}, worse in "
        f"{int((own[f'{of}_high'] < 0).sum())} of {len(own)}"
        for of, name in (("auc", "AUC"), ("tpr", f"found at {own['allowed'].max():.1%}"))
    ]
    other = "the best text baseline" if against == BASELINE else "the first method of its place"
    said = "; ".join(words)
    return f"Against {other}, counting only differences whose 95 % interval leaves out 0: {said}."


def _table(rows: pd.DataFrame) -> pages.Table:
    columns: dict[str, pages.Cell] = {
        "probe of": lambda r: {
            "text": r["task"],
            "small": f"{r['probe']} on {r['source']} (seed {r['seed']})",
        },
        "against": lambda r: {"text": r["reference_method"], "small": r["against"]},
        "AUC": lambda r: _both(r, "auc", ".3f"),
        "difference": lambda r: _gap(r, "auc", "+.3f"),
        "found": lambda r: _both(r, "tpr", ".1%"),
        "more found": lambda r: _gap(r, "tpr", "+.1%"),
        "found alone: it / the other": lambda r: _alone(r, "found"),
        "alarms alone: it / the other": lambda r: _alone(r, "alarms"),
    }
    made = pages.table(rows, columns, 1)
    assert made is not None
    return made


def _both(r: Mapping[str, Any], of: str, form: str) -> str:
    return f"{number(r[of], form)} / {number(r[f'reference_{of}'], form)}"


def _gap(r: Mapping[str, Any], of: str, form: str) -> dict[str, str]:
    ends = pages.interval(r[f"{of}_low"], r[f"{of}_high"], form)
    p = r[f"{of}_p"]
    words = [ends] if ends else []
    words += [] if pd.isna(p) else [f"p = {p:.2g}"]
    return {"text": number(r[f"{of}_delta"], form), "small": ", ".join(words)}


def _alone(r: Mapping[str, Any], of: str) -> dict[str, str]:
    if pd.isna(r[f"{of}_p"]):
        return {"text": "", "small": ""}
    first, second = int(r[f"{of}_alone"]), int(r[f"reference_{of}_alone"])
    return {"text": f"{first:,} / {second:,}", "small": f"p = {r[f'{of}_p']:.2g}"}
