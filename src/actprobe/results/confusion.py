"""Confusion matrices, summed over runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from actprobe.probes.feature_targets import EACH
from actprobe.results.features import CELL


def confusions(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for every pair of classes that occurs in a cell: columns CELL, true, predicted, n.

    runs: rows of a tidy table; those of single modules are left out.
    """
    found = []
    fits = runs[(runs["confusion"] != "") & (runs["columns"] != EACH)]
    for cell, rows in fits.groupby(CELL, sort=False):
        classes = np.array(json.loads(rows["classes"].iloc[0]), object)
        cells = np.concatenate([np.array(json.loads(c)) for c in rows["confusion"]])
        pairs, at = np.unique(cells[:, :2], axis=0, return_inverse=True)
        table = pd.DataFrame(dict(zip(CELL, cell, strict=True)), index=range(len(pairs)))
        table["true"], table["predicted"] = classes[pairs[:, 0]], classes[pairs[:, 1]]
        table["n"] = np.bincount(at.ravel(), cells[:, 2]).astype(int)
        found.append(table)
    columns = [*CELL, "true", "predicted", "n"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def square(cells: pd.DataFrame) -> pd.DataFrame:
    """Counts of pairs of classes as a matrix of the classes that occur, 0 where a pair does not."""
    names = sorted({*cells["true"], *cells["predicted"]}, key=str)
    counts = cells.pivot(index="true", columns="predicted", values="n")
    return counts.reindex(index=names, columns=names).fillna(0)
