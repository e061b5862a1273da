"""Confusion matrices, summed over runs: of labels of several classes, and of probes of features."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import numpy as np
import pandas as pd

from actprobe.probes.feature_targets import EACH
from actprobe.probes.kinds import MULTICLASS
from actprobe.results import features, scores, views
from actprobe.results.tables import natural

COLLECTION = ["protocol", "setting", "condition", "dataset", "label", "metric"]
CELL = [*COLLECTION, "model", "site", "position", "source", "columns", "method", "k"]
CONFUSIONS = [*CELL, "chosen", "true", "predicted", "n"]


def shown(table: pd.DataFrame, two_classes: bool = False) -> pd.DataFrame:
    """The rows of a tidy table whose confusions are told.

    Of probes of texts those of more than two classes, or all with `two_classes`, in the setting and at
    the condition that stand for their protocol; of features all but single modules.
    """
    rows = table[table["confusion"] != ""]
    of_features = rows[(rows["columns"] != "") & (rows["columns"] != EACH)]
    of_texts = rows[rows["columns"] == ""]
    if not two_classes:
        of_texts = of_texts[of_texts["kind"] == MULTICLASS]
    return pd.concat([views.usual(of_texts)[table.columns], of_features])


def confusions(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for every pair of classes that occurs in a cell of `shown` rows; columns CONFUSIONS.

    chosen: whether the cell has the best mean validation score of its collection. Controls are no
    candidates; where nothing validated, the first cell stands.
    """
    found: list[pd.DataFrame] = []
    candidates: dict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
    control = views.control(rows) | features.is_control(rows) | rows["test_score"].isna()
    for i, (cell, runs) in enumerate(rows.groupby(CELL, sort=False, dropna=False)):
        lines = _counted(runs)
        found.append(pd.DataFrame(dict(zip(CELL, cell, strict=True)), lines.index).join(lines))
        if not control[runs.index].all():
            val = scores.goodness(runs["val_score"].mean(), scores.metric_of(runs))
            worse = math.inf if pd.isna(val) else -float(val)
            candidates[cell[: len(COLLECTION)]].append((worse, i))
    chosen = {min(of)[1] for of in candidates.values()}
    table = pd.concat(
        [lines.assign(chosen=i in chosen) for i, lines in enumerate(found)]
        or [pd.DataFrame(columns=CONFUSIONS)],
        ignore_index=True,
    )
    return table[CONFUSIONS].astype({"k": "Int64", "chosen": bool})


def _counted(runs: pd.DataFrame) -> pd.DataFrame:
    """True class, predicted class and number of rows, over the runs of one cell."""
    classes = np.array(json.loads(runs["classes"].iloc[0]), object)
    counts = np.concatenate([np.array(json.loads(c)) for c in runs["confusion"]])
    pairs, at = np.unique(counts[:, :2], axis=0, return_inverse=True)
    n = np.bincount(at.ravel(), counts[:, 2]).astype(int)
    return pd.DataFrame({"true": classes[pairs[:, 0]], "predicted": classes[pairs[:, 1]], "n": n})


def best(table: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The chosen cells of a table of `confusions`: what each is called, and its lines."""
    cells = table[table["chosen"]].groupby(CELL, sort=False, dropna=False)
    return [(dict(zip(CELL, cell, strict=True)), lines) for cell, lines in cells]


def square(cells: pd.DataFrame) -> pd.DataFrame:
    """Counts of pairs of classes as a matrix of the classes that occur, 0 where a pair does not."""
    names = sorted({*cells["true"], *cells["predicted"]}, key=natural)
    counts = cells.pivot(index="true", columns="predicted", values="n")
    return counts.reindex(index=names, columns=names).fillna(0)


def mistakes(cells: pd.DataFrame) -> pd.DataFrame:
    """The pairs of classes that were taken for one another in one cell, the commonest first.

    Columns true, predicted, n (rows of all runs) and share (of the true class).
    """
    share = cells["n"] / cells.groupby("true")["n"].transform("sum")
    wrong = cells.assign(share=share)[cells["true"] != cells["predicted"]]
    order = wrong.sort_values(["n", "share"], ascending=False, kind="stable")
    return order[["true", "predicted", "n", "share"]]
