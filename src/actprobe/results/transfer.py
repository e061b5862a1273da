"""The transfer matrix: fits of each collection tried on the others, as one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from actprobe import store
from actprobe.errors import BadInput
from actprobe.probes import door

# What a cell of the matrix is for; `train` and `test` are its row and column.
PLACE = [
    "protocol",
    "setting",
    "kind",
    "metric",
    "source",
    "model",
    "site",
    "position",
    "method",
    "k",
]
CELL = [*PLACE, "train", "label", "test"]
VALUES = ["score", "ci_low", "ci_high", "null_low", "null_high"]
COUNTS = ["n", "n_used", "n_excluded", "n_other"]
COLUMNS = [*CELL, *VALUES, *COUNTS, "seeds", "beyond_chance", "reason"]

_TEXT = [c for c in CELL if c != "k"]


def collect(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of these evaluations, without scores of single rows; tombstones are passed over.

    Raises Damaged when an artefact is.
    """
    tables = []
    for path in paths:
        try:
            tables.append(door.told(store.read_table(path)))
        except BadInput:
            continue
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()


def matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with the columns COLUMNS.

    rows: of evaluations (`probes.evaluations.run.columns`). score: mean over seeds of the main metric;
    ci_*: means of the ends of its interval, null_*: of those of the band of exchanged labels, over the
    seeds that have a number. Where train and test are one collection the score is that of the fit's own
    test rows. Counts are means over seeds, rounded. beyond_chance: whether the mean score is above the
    band; null where there is no band. reason: why there is no number, "" where there is one.
    """
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    named = rows.rename(columns={"dataset": "train", "collection": "test"})
    named = named.assign(k=named["k"].astype("Int64"))
    named[_TEXT] = named[_TEXT].fillna("")
    groups = named.groupby(CELL, dropna=False, sort=True)
    with_number = named[named["score"].notna()].groupby(CELL, dropna=False, sort=True)
    cells = groups[COUNTS].mean().round().astype("Int64")
    cells["seeds"] = with_number.size().reindex(cells.index, fill_value=0)
    cells = cells.join(with_number[VALUES].mean())
    known = cells["score"].notna() & cells["null_high"].notna()
    beyond = pd.Series(pd.NA, index=cells.index, dtype="boolean")
    beyond[known] = cells["score"][known] > cells["null_high"][known]
    reason = groups["reason"].agg(lambda of: next((r for r in of if r), ""))
    cells = cells.assign(
        beyond_chance=beyond,
        reason=np.where(cells["score"].isna(), reason.reindex(cells.index), ""),
    )
    return cells.reset_index()[COLUMNS]
