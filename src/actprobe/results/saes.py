"""What the SAEs behind the probes did: sparsity, silent latents, reconstruction, training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from actprobe import keys, store
from actprobe.errors import Damaged
from actprobe.results.views import count

CODES = ["sae", "dataset", "model", "site", "position", "architecture", "n_latents"]
CODES += ["l0_mean", "l0_min", "l0_median", "l0_max", "silent", "variance_explained", "sample"]
CODES += ["note", "key"]
CURVE = ["sae", "tokens", "fvu_train", "fvu_held_out", "dead"]
GONE = "its latents are not in the cache any more"


def codes_table(encoded: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """One row per SAE and dataset (columns `CODES`), from the headers of the latents artefacts.

    encoded: what `layout.encoded` says. l0: latents that fire on a row; silent: latents that fire
    on no row of the dataset; variance_explained: of a sample of rows, by the SAE's reconstruction.
    Latents that were deleted or stand for a bad dataset have a row with a `note`.
    """
    rows = []
    for e in encoded:
        row = dict.fromkeys(CODES, math.nan) | {c: e[c] for c in CODES[:5]}
        rows.append(row | _codes(e["latents"]))
    return pd.DataFrame(rows, columns=CODES)


def _codes(path: str) -> dict[str, Any]:
    try:
        header = store.read_header(path)
    except (Damaged, OSError):
        return {"architecture": "", "note": GONE, "key": ""}
    if header["bad"]:
        return {"architecture": "", "note": header["bad"], "key": keys.short(header["key"])}
    facts = header["facts"]
    return {
        "architecture": facts["architecture"],
        "n_latents": facts["live"] + facts["dead"],
        **{f"l0_{name}": value for name, value in facts["l0"].items()},
        "silent": facts["dead"],
        "variance_explained": facts["variance_explained"],
        "sample": facts["sample"],
        "note": "; ".join(facts["warnings"]),
        "key": keys.short(header["key"]),
    }


def training_table(encoded: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """The training curves of SAEs that were trained here (columns `CURVE`).

    fvu: fraction of variance unexplained, in training since the row before and on held-out tokens;
    dead: latents that have not fired for long.
    """
    trained = {e["sae"]: e["trained"] for e in encoded if e["trained"]}
    rows = []
    for name, path in trained.items():
        try:
            curve = store.read_header(path)["facts"]["training"]["curve"]
        except (Damaged, OSError, KeyError):  # deleted, or a tombstone
            continue
        rows += [[name, *point] for point in curve]
    return pd.DataFrame(rows, columns=CURVE)


def report_rows(codes: pd.DataFrame) -> list[list[str]]:
    """Cells of the report: one row per SAE, means over datasets with their range."""
    rows = []
    for name, group in codes.groupby("sae", sort=False):
        known = group[group["n_latents"].notna()]
        notes = group.loc[group["note"].fillna("") != "", "note"].value_counts()
        told = [f"{note} ({count(n, 'dataset')})" for note, n in notes.items()]
        if known.empty:
            rows.append([str(name), *[""] * 6, "; ".join(told)])
            continue
        first = known.iloc[0]
        silent = known["silent"] / known["n_latents"]
        explained = known["variance_explained"].astype(float).dropna()
        rows.append(
            [
                str(name),
                f"{first['model']}, {first['site']}, {first['position']}",
                f"{first['n_latents']:,.0f}, {first['architecture']}",
                str(len(known)),
                _span(known["l0_mean"].astype(float), "{:.3g}"),
                _span(silent, "{:.0%}"),
                _span(explained, "{:.3f}"),
                "; ".join(told),
            ]
        )
    return rows


def _span(values: pd.Series, form: str) -> str:
    if values.empty:
        return ""
    low, mean, high = (form.format(v) for v in (values.min(), values.mean(), values.max()))
    return mean if low == high else f"{mean} ({low} … {high})"
