"""The part of the page about SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import Table
from actprobe.results.views import count


def about(codes: pd.DataFrame) -> Table | None:
    """One row per SAE, means over datasets with their range. codes: columns `saes.CODES`."""
    rows = [_row(str(name), of) for name, of in codes.groupby("sae", sort=False)]
    columns = ["SAE", "reads", "latents", "datasets", "L0", "silent", "explained", "notes"]
    shown: Mapping[str, pages.Cell] = {c: c for c in columns}
    return pages.table(pd.DataFrame(rows), shown, labels=2, wrap=["notes"])


def _row(name: str, codes: pd.DataFrame) -> dict[str, Any]:
    known = codes[codes["n_latents"].notna()]
    notes = codes.loc[codes["note"].notna() & (codes["note"] != ""), "note"].value_counts()
    told = [f"{note} ({count(n, 'dataset')})" for note, n in notes.items()]
    row = dict.fromkeys(("reads", "latents", "datasets", "L0", "silent", "explained"), "")
    if len(known):
        first = known.iloc[0]
        row = {
            "reads": f"{first['model']}, {first['site']}, {first['position']}",
            "latents": f"{first['n_latents']:,.0f}, {first['architecture']}",
            "datasets": str(len(known)),
            "L0": _span(known["l0_mean"].astype(float), "{:.3g}"),
            "silent": _span(known["silent"] / known["n_latents"], "{:.0%}"),
            "explained": _span(known["ordinary_explained"].astype(float).dropna(), "{:.3f}"),
        }
        told += _massive(known) + _seen(known)
    return {"SAE": name, **row, "notes": "; ".join(told)}


def _massive(known: pd.DataFrame) -> list[str]:
    """What massive activations make of the variance explained, where there are any."""
    some = known[known["massive"].fillna(0).astype(float) > 0]
    if some.empty:
        return []
    share = some["massive"].astype(float) / some["sample"].astype(float)
    return [
        f"{share.mean():.1%} of the rows of {count(len(some), 'dataset')} have a massive activation "
        f"(over ten times the median norm) and are left out of the variance explained; with them it "
        f"is {_span(some['variance_explained'].astype(float), '{:.3f}')}"
    ]


def _seen(known: pd.DataFrame) -> list[str]:
    """That an SAE was trained on rows that its probes test, where it was."""
    seen = known["tested_rows_seen"].astype(float)
    some = seen[seen > 0]
    if some.empty:
        return []
    return [
        f"trained on rows that its probes test: {_span(some, '{:.0%}')} of those of "
        f"{count(len(some), 'dataset')}"
    ]


def _span(values: pd.Series, form: str) -> str:
    if values.empty:
        return ""
    low, mean, high = (form.format(v) for v in (values.min(), values.mean(), values.max()))
    return mean if low == high else f"{mean} ({low} … {high})"
