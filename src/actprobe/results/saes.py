"""What the SAEs behind the probes did: sparsity, silent latents, reconstruction, training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from actprobe.base import keys
from actprobe.base.errors import BadInput, Damaged
from actprobe.cache import store

CODES = ["sae", "dataset", "model", "site", "position", "architecture", "n_latents"]
CODES += ["l0_mean", "l0_min", "l0_median", "l0_max", "silent"]
QUALITY = ["variance_explained", "variance_explained_low", "variance_explained_high", "sample"]
QUALITY += ["massive", "ordinary_explained", "ordinary_explained_low", "ordinary_explained_high"]
CODES += [*QUALITY, "tested_rows_seen", "note", "key"]
CURVE = ["sae", "tokens", "fvu_train", "fvu_held_out", "dead", "fvu_held_out_ordinary"]
TRAINED = ["rows", "rows_used", "rows_there", "tested_rows_seen"]
GONE = "its latents are not in the cache any more"


def codes_table(encoded: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """One row per SAE and dataset (columns `CODES`), from the headers of the latents artefacts.

    encoded: what `layout.encoded` says. l0: latents that fire on a row; silent: latents that fire
    on no row of the dataset; variance_explained: of a sample of rows, by the SAE's reconstruction,
    with the 95 % interval for all rows where the sample is a part of them; massive: rows of the
    sample whose norm is over ten times the median, ordinary_explained: without these;
    tested_rows_seen: of an SAE that was trained here, the share of the rows tested by its probes
    whose texts it was trained on. Latents that were deleted or stand for a bad dataset have a row
    with a `note`.
    """
    rows = []
    for e in encoded:
        row = dict.fromkeys(CODES, math.nan) | {c: e[c] for c in CODES[:5]}
        row |= _codes(e["latents"])
        seen = tested_rows_seen(e)
        rows.append(row | {"tested_rows_seen": math.nan if seen is None else seen})
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
        **{name: facts.get(name) for name in QUALITY},
        "note": "; ".join(facts["warnings"]),
        "key": keys.short(header["key"]),
    }


def tested_rows_seen(e: Mapping[str, Any]) -> float | None:
    """Share of a dataset's tested rows that the SAE of an `encoded` entry was trained on; None for
    one that was not trained here, or whose files are gone."""
    from actprobe.sae import rows

    if not e["trained"]:
        return None
    try:
        return rows.seen(e["trained"], e["texts"], [tuple(test) for test in e["tests"]])
    except (BadInput, Damaged, OSError):
        return None


def training_table(encoded: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The training curves of SAEs that were trained here (columns `CURVE`, `TRAINED`).

    fvu: fraction of variance unexplained, in training since the row before and on held-out tokens,
    also without massive activations (ordinary); dead: latents that have not fired for long; rows:
    untested or all, how many of how many, and the largest share of a dataset's tested rows among them.
    """
    trained: dict[str, list[Mapping[str, Any]]] = {}
    for e in encoded:
        if e["trained"]:
            trained.setdefault(e["sae"], []).append(e)
    rows = []
    for name, entries in trained.items():
        try:
            about = store.read_header(entries[0]["trained"])["facts"]["training"]
        except (Damaged, OSError, KeyError):  # deleted, or a tombstone
            continue
        seen = [s for e in entries if (s := tested_rows_seen(e)) is not None]
        told = [*(about[k] for k in TRAINED[:3]), max(seen, default=math.nan)]
        rows += [[name, *point, *told] for point in about["curve"]]
    return pd.DataFrame(rows, columns=[*CURVE, *TRAINED])
