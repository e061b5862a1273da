"""Probes of features: means over runs with intervals and controls beside them, and what is chosen.

Rows of features are those of a tidy table that say which `columns` they read.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from actprobe.lora import CONTROLS, REPRESENTATIONS
from actprobe.probes.feature_targets import EACH
from actprobe.probes.intervals import wilson
from actprobe.probes.metrics import all_metrics
from actprobe.results import scores
from actprobe.results.seeds import chosen, interval, simultaneous

WHERE = ["protocol", "setting", "dataset", "label", "metric"]
CELL = [*WHERE, "source", "columns", "site", "method"]
COUNTS = ["n_train", "n_test", "n_columns", "n_constant", "n_repeated"]
_BESIDE = [*(c for c in CELL if c not in ("source", "method")), "method"]  # a control's cell
_MEANS = ["test_score", "val_score", "train_score"]
SHARED = '"test_rows": "shared"'  # in the `params` of runs that test on the same rows
CHOICES = [
    *WHERE, "n_runs", "among", "most", "of_runs", "test_score", "ci_low", "ci_high", "chance",
    *CONTROLS,
]  # fmt: skip


def columns() -> list[str]:
    """Columns of `summarise`."""
    means = [*_MEANS, *(m.column for m in all_metrics().values())]
    return [
        *CELL, "n_runs", *(c for m in means for c in (m, f"{m}_std")), "ci_low", "ci_high", "chance",
        *CONTROLS, *COUNTS, "converged", "leak_fraction", "group_fraction", "looks", "outliers",
        "reason",
    ]  # fmt: skip


def of_features(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a tidy table that are of features, in the order of the representations."""
    rows = table[table["columns"] != ""]
    rows = rows.assign(rank=rows["source"].map(rank))
    rows = rows.sort_values([*WHERE, "rank", *CELL, "seed"], kind="stable")
    return rows.drop(columns="rank").reset_index(drop=True)


def rank(source: str) -> int:
    """Where a representation of a collection stands in the usual order."""
    of = source.partition("/")[2]
    return [*REPRESENTATIONS].index(of) if of in REPRESENTATIONS else len(REPRESENTATIONS)


def representation(rows: pd.DataFrame) -> pd.Series:
    """What the source of each row is within its collection [n]."""
    return rows["source"].map(lambda s: str(s).partition("/")[2]).astype(str)


def is_control(rows: pd.DataFrame) -> pd.Series:
    """True for rows of recipe_only and norm_only [n]."""
    return representation(rows).isin(CONTROLS) & (rows["columns"] != "")


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: means and standard deviations (ddof 0) over runs, and the controls.

    ci_low, ci_high: `seeds.interval` of the mean score; of a single run its own. Runs with the same
    test rows differ less than other test rows would make them: there it also covers the interval of one
    run around the mean. Single modules, and the methods of recipe_only, are looked at together for the
    best: their intervals hold for as many as `looks` says. chance: of an accuracy always the largest
    class, or guessing where that is better. Column norm_only: mean score of the same method on that
    control and the same columns (of the best one, where the method reads the recipe alone); recipe_only:
    the largest mean score of all methods on it.
    """
    cells = runs[CELL].drop_duplicates()
    looks = dict(zip(cells.itertuples(index=False, name=None), _looks(cells), strict=True))
    table = pd.DataFrame(
        [_cell(cell, rows, looks[cell]) for cell, rows in runs.groupby(CELL, sort=False)],
        columns=columns(),
    )
    recipe = _recipe(table)
    table["recipe_only"] = [recipe.get(tuple(at), np.nan) for at in table[WHERE].to_numpy()]
    norm = table[representation(table) == "norm_only"]
    means, best = (norm.groupby(keys)["test_score"].max() for keys in (_BESIDE, _BESIDE[:-1]))
    table["norm_only"] = [
        means.get(tuple(at), best.get(tuple(at[:-1]), np.nan)) for at in table[_BESIDE].to_numpy()
    ]
    return table


def _cell(cell: tuple, rows: pd.DataFrame, looks: int) -> dict[str, Any]:
    """The row of `summarise` for the runs of one cell."""
    fits = rows[rows["test_score"].notna()]
    row: dict[str, Any] = dict(zip(CELL, cell, strict=True)) | {"n_runs": len(fits), "looks": looks}
    for m in [*_MEANS, *(m.column for m in all_metrics().values())]:
        row[m] = fits[m].mean()
        row[f"{m}_std"] = fits[m].std(ddof=0)
    row["ci_low"], row["ci_high"] = _interval(fits, row["metric"], looks)
    row["chance"] = _chance(fits, row["metric"])
    row |= {k: fits[k].astype(float).median() for k in COUNTS}
    row["converged"] = fits["converged"].dropna().astype(float).mean()
    row |= {k: fits[k].mean() for k in ("leak_fraction", "group_fraction")}
    far = (i for o in fits["outliers"] if o for i in json.loads(o))
    row["outliers"] = ", ".join(dict.fromkeys(far))
    row["reason"] = "; ".join(dict.fromkeys(r for r in rows["reason"] if r))
    return row


def _interval(fits: pd.DataFrame, metric: str, looks: int = 1) -> tuple[float, float]:
    """The interval of the mean score of some runs, as `summarise` has it."""
    if fits.empty:
        return np.nan, np.nan
    values, n_test = fits["test_score"].to_numpy(float), int(fits["n_test"].iloc[0])
    if looks > 1 and metric == "acc":
        return simultaneous(values.mean(), int(fits["n_test"].astype(float).median()), looks)
    if len(fits) == 1:
        return fits["ci_low"].item(), fits["ci_high"].item()
    ratio = (fits["n_test"] / fits["n_train"]).mean()
    within, level = scores.span(scores.known(metric)), 1 - 0.05 / looks
    low, high = interval(values, float(ratio), within, level)
    if SHARED in fits["params"].iloc[0]:
        if metric == "acc":
            least, most = wilson(values.mean(), n_test)
        else:
            least, most = fits["ci_low"].mean(), fits["ci_high"].mean()
        low, high = np.fmin(low, least), np.fmax(high, most)
    return float(low), float(high)


def _chance(fits: pd.DataFrame, metric: str) -> float:
    """Of an accuracy always the largest class, or guessing; by groups, classes differ between sides."""
    if metric != "acc":
        return scores.CHANCE.get(metric, np.nan) if len(fits) else np.nan
    guess = max((1 / len(json.loads(c)) for c in fits["classes"].unique()), default=np.nan)
    return max(fits["chance"].mean(), guess)


def _looks(cells: pd.DataFrame) -> list[int]:
    """Among how many cells each is looked at: single modules, and methods of the recipe."""
    control = is_control(cells)
    each, recipe = cells["columns"] == EACH, representation(cells) == "recipe_only"
    looks = pd.Series(1, cells.index)
    for these in (each & ~control, each & control, recipe):
        if these.any():
            looks[these] = cells[these].groupby(WHERE)["method"].transform("size")
    return looks.tolist()


def _recipe(table: pd.DataFrame) -> pd.Series:
    """The largest mean score of all methods on the recipe."""
    rows = table[representation(table) == "recipe_only"]
    return rows.groupby(WHERE)["test_score"].max()


def choices(runs: pd.DataFrame) -> pd.DataFrame:
    """What choosing a representation, columns and method by validation reaches, per collection.

    Every run chooses by its own validation rows (`chosen`), and is tested on rows that played no
    part in it. most: the commonest choice, of_runs: how many runs made it, among: cells to choose
    from. Columns of controls: what choosing among their cells reaches; recipe_only the largest mean.
    """
    fits = runs[runs["test_score"].notna() & (runs["columns"] != EACH)]
    recipe = _recipe(summarise(fits))
    norm = chosen(fits[representation(fits) == "norm_only"], WHERE)
    norm = norm.groupby(WHERE)["test_score"].mean()
    found = []
    read = fits[~is_control(fits)]
    for at, rows in chosen(read, WHERE).groupby(WHERE, sort=False):
        cells = rows[["source", "columns", "method"]].agg(", ".join, axis=1)
        low, high = _interval(rows, at[-1])
        of_all = read[(read[WHERE] == list(at)).all(axis=1)]
        found.append(
            dict(zip(WHERE, at, strict=True))
            | {"n_runs": len(rows), "among": of_all.groupby(CELL).ngroups,
               "most": cells.mode().iloc[0], "of_runs": int((cells == cells.mode().iloc[0]).sum()),
               "test_score": rows["test_score"].mean(), "ci_low": low, "ci_high": high,
               "chance": _chance(rows, at[-1]), "recipe_only": recipe.get(at, np.nan),
               "norm_only": norm.get(at, np.nan)}
        )  # fmt: skip
    return pd.DataFrame(found, columns=CHOICES)
