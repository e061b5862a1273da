"""The transfer matrix: fits of each collection tried on the others, as one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from actprobe.base.errors import BadInput
from actprobe.probes import door
from actprobe.results import scores, views

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

TEXT = [c for c in CELL if c != "k"]
PART = ["protocol", "setting", "kind", "metric"]  # what one probe is chosen for
PROBE = ["model", "site", "position", "source", "method", "k"]


def collect(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of these evaluations, without scores of single rows; tombstones are passed over.

    Raises Damaged when an artefact is.
    """
    tables = []
    for path in paths:
        try:
            tables.append(door.told(path))
        except BadInput:
            continue
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()


def matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with the columns COLUMNS.

    rows: of evaluations (`probes.evaluations.run.columns`). score: mean over seeds of the main metric;
    ci_*: means of the ends of its interval, null_*: of those of the band of exchanged labels, over the
    seeds that have a number. Where train and test are one collection the score is that of the fit's own
    test rows. Counts are means over seeds, rounded. beyond_chance: whether the mean score is better than
    the band; null where there is no band. reason: why there is no number, "" where there is one.
    """
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    named = rows.rename(columns={"dataset": "train", "collection": "test"})
    named = named.assign(k=named["k"].astype("Int64"))
    named[TEXT] = named[TEXT].fillna("")
    groups = named.groupby(CELL, dropna=False, sort=True)
    with_number = named[named["score"].notna()].groupby(CELL, dropna=False, sort=True)
    cells = groups[COUNTS].mean().round().astype("Int64")
    cells["seeds"] = with_number.size().reindex(cells.index, fill_value=0)
    cells = cells.join(with_number[VALUES].mean())
    known = cells["score"].notna() & cells["null_high"].notna()
    beyond = pd.Series(pd.NA, index=cells.index, dtype="boolean")
    beyond[known] = outside(cells.reset_index()).to_numpy()[known] > 0
    reason = groups["reason"].agg(lambda of: next((r for r in of if r), ""))
    cells = cells.assign(
        beyond_chance=beyond,
        reason=np.where(cells["score"].isna(), reason.reindex(cells.index), ""),
    )
    return cells.reset_index()[COLUMNS]


def outside(cells: pd.DataFrame) -> pd.Series:
    """1 where a score is better than its null band, -1 where it is worse, else 0 [n]."""
    above = (cells["score"] > cells["null_high"]).astype(int)
    side = above - (cells["score"] < cells["null_low"]).astype(int)
    higher = {name: scores.known(name).higher for name in cells["metric"].unique()}
    return side.where(cells["metric"].map(higher).astype(bool), -side)


def own(cells: pd.DataFrame) -> pd.Series:
    """True for cells of the diagonal: the fit's own test rows [n]."""
    return cells["train"] == cells["test"]


def chosen(cells: pd.DataFrame, probes: pd.DataFrame) -> list[pd.DataFrame]:
    """The cells of one probe for every protocol, setting, kind and metric of a matrix; never empty.

    probes: the tidy table. Of the probes with a number for most training sets the one with the best mean
    validation score on these sets is taken; what it reaches on other collections has no say. Controls
    are no candidates. Ties go to the first of the tidy table; where nothing validated, the first cell's
    probe stands. The cells have the added column `among`, the number of candidates.
    """
    probes = probes[probes["val_score"].notna()]
    fits = dict(list(_keyed(probes).groupby(["part", "probe"], sort=False)))
    found = []
    for part, rows in _keyed(cells[~views.control(cells)]).groupby("part", sort=False):
        candidates = dict(list(rows.groupby("probe", sort=False)))
        known = [probe for of, probe in fits if of == part and probe in candidates]
        metric = scores.metric_of(rows)
        best, most = next(iter(candidates)), (0, -np.inf)
        for probe in known:
            trains = candidates[probe].loc[candidates[probe]["score"].notna(), "train"]
            fitted = fits[part, probe]
            val = views.per_dataset(fitted[fitted["dataset"].isin(set(trains))], "val_score").mean()
            reached = (trains.nunique(), scores.goodness(val, metric))
            if reached > most:
                best, most = probe, reached
        found.append(candidates[best].drop(columns=["part", "probe"]).assign(among=len(candidates)))
    return found


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what tells their part and their probe, each as one text."""
    told = rows[[*PART, *PROBE]].assign(k=rows["k"].map(lambda k: "" if pd.isna(k) else f"{k:g}"))
    keys = {
        name: ["\0".join(map(str, of)) for of in told[columns].itertuples(index=False)]
        for name, columns in (("part", PART), ("probe", PROBE))
    }
    return rows.assign(**keys)
