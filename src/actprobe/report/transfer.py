"""The part of the page about transfer: fits of one collection tried on the others."""

from __future__ import annotations

from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import interval, number
from actprobe.results import scores, transfer, views
from actprobe.results.make import Written

_NAMED = 5  # pairs of one sentence
_REASONS = 3


def part(found: Written) -> dict[str, Any] | None:
    """Facts in sentences and a table for each protocol; None without evaluations."""
    matrices = transfer.chosen(found["transfer"], found.probes)
    if not matrices:
        return None
    facts = [fact for cells in matrices for fact in _facts(cells)]
    return {"facts": facts, "tables": [_table(cells) for cells in matrices]}


def names(cells: pd.DataFrame) -> list[str]:
    """What tells one chosen matrix from the others: protocol, setting, place and probe."""
    first = views.named(cells.head(1)).iloc[0]
    setting = [] if first["setting"] == "normal" else [first["setting"]]
    return [first["protocol"], *setting, views.place_name(first), first["probe"]]


def trained(cells: pd.DataFrame) -> pd.Series:
    """What each cell's probe was trained for, in words [n]."""
    return views.tasks(cells.assign(dataset=cells["train"]))


def _facts(cells: pd.DataFrame) -> list[str]:
    """What the pairs of different collections say, a sentence for each fact."""
    head, metric = ", ".join(names(cells)), scores.metric_of(cells)
    pairs = cells[~transfer.own(cells)]
    if pairs.empty:
        return [f"{head}: there is no pair of different collections."]
    known, side = pairs[pairs["score"].notna()], transfer.outside(pairs)
    banded = known[known["null_low"].notna()]
    found = [f"{head} is one of {views.count(int(cells['among'].iloc[0]), 'probe')}."]
    for sign, better in ((1, "better"), (-1, "worse")):
        there = pairs[side == sign]
        if len(there) or sign > 0:
            how_many = f"{len(there):,} of {views.count(len(banded), 'pair')}"
            which = _named(there, scores.goodness(sign, metric) > 0)
            found.append(f"Outside of the null band on its {better} side: {how_many}{which}.")
    n, excluded, other = (int(known[c].sum()) for c in ("n", "n_excluded", "n_other"))
    found.append(
        f"Of {n:,} rows scored in these pairs {excluded:,} share a text or a group with rows that were "
        f"fitted, and {other:,} have no label that the fit knows: they do not count."
    )
    lost = pairs[pairs["score"].isna()]
    if len(lost):
        why = "; ".join(list(dict.fromkeys(lost["reason"]))[:_REASONS])
        found.append(f"{views.count(len(lost), 'pair')} without a number: {why}.")
    return found


def _named(pairs: pd.DataFrame, highest: bool) -> str:
    """The pairs that are furthest out, with their scores."""
    first = pairs.sort_values("score", ascending=not highest, kind="stable").head(_NAMED)
    told = [
        f"{task} → {test} {score:.2f}"
        for task, test, score in zip(trained(first), first["test"], first["score"], strict=True)
    ]
    more = f" and {len(pairs) - _NAMED:,} more" if len(pairs) > _NAMED else ""
    return f": {', '.join(told)}{more}" if told else ""


def _table(cells: pd.DataFrame) -> pages.Table:
    rows = cells.assign(task=trained(cells), outside=transfer.outside(cells))
    sides = {1: "better", -1: "worse", 0: "inside"}
    columns: dict[str, pages.Cell] = {
        "train": "task",
        "test": "test",
        scores.metric_of(cells).label: lambda r: {
            "text": number(r["score"]),
            "small": interval(r["ci_low"], r["ci_high"], between="–"),
        },
        "null band": lambda r: interval(r["null_low"], r["null_high"], between="–"),
        "outside": lambda r: "" if pd.isna(r["null_low"]) else sides[r["outside"]],
    }
    counts = {"rows": "n", "counted": "n_used", "excluded": "n_excluded", "other label": "n_other"}
    columns |= {words: pages.of_number(c, "g") for words, c in {**counts, "seeds": "seeds"}.items()}
    columns |= {"reason": "reason"} if (rows["reason"] != "").any() else {}
    made = pages.table(rows, columns, 2, title=", ".join(names(cells)), wrap=["reason"])
    assert made is not None, "a chosen matrix has cells"
    return made
