"""Choosing a method by validation: the "quiver of arrows" and its ties.

Kantamneni et al. 2025 (arXiv 2502.16681), section 3: for every dataset the method with the highest
validation AUC is chosen and its test AUC reported; here with the main metric of the label. Validation
sets are small, so many methods tie; the rule that breaks ties is part of the result, and the band over
all tie orders belongs beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from actprobe.results import scores
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.tables import TASK, natural, sort_rows
from actprobe.results.views import baseline, control, named, per_dataset, probe_order

BY = ("dataset", "label", "condition", "seed")
SLICE = ["experiment", "protocol", "setting", "metric", "model", "site", "position"]
PROBE = [*SLICE, "source", "method", "k"]
TIES = {
    "methods": "baselines first (logreg, ridge, pca, knn, xgboost, mlp), then smaller k, then name",
    "rows": "the first row of the table",
}
# Validation scores closer than this are equal: they are averages of fractions with small
# denominators, whose last digits depend on the order of a sum or on how a file was read.
TOLERANCE = 1e-9
KS = (16, 128)
BASELINES = "baselines"
QUIVER = [*SLICE, "candidates", "n_datasets", "n_choices", "n_tied"]
QUIVER += ["test_score", "ci_low", "ci_high", "tie_low", "tie_high", "n_sae"]


def quiver(
    rows: pd.DataFrame,
    by: Sequence[str] = BY,
    ties: str = "methods",
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """The row with the best val_score of every group, with what the other tie orders would give.

    rows: the candidates of one comparison (tidy columns), of one metric; those without val_score or
    test_score cannot be chosen. ties: a rule of TIES. tolerance: a val_score within it of the
    best is tied. Returns one row per group in order of appearance, with the added columns n_tied
    (1: no tie) and tie_low, tie_high, tie_mean: lowest, highest and mean test_score of the tied rows.
    """
    if ties not in TIES:
        raise ValueError(f"no tie rule {ties!r}; expected one of {', '.join(TIES)}")
    known = rows[rows["val_score"].notna() & rows["test_score"].notna()]
    val = scores.goodness(known["val_score"], scores.metric_of(known))
    best = val.groupby([known[c] for c in by], dropna=False, sort=False).transform("max")
    tied = known[val >= best - tolerance]
    spread = tied.groupby(list(by), dropna=False, sort=False)["test_score"]
    tied = tied.assign(
        n_tied=spread.transform("size"),
        tie_low=spread.transform("min"),
        tie_high=spread.transform("max"),
        tie_mean=spread.transform("mean"),
    )
    if ties == "methods":
        tied = tied.loc[_ranked(tied)]
    return tied.drop_duplicates(list(by)).sort_index(kind="stable")


def _ranked(rows: pd.DataFrame) -> pd.Index:
    """The index of the rows in the order of the rule `methods`."""
    probes = named(rows)["probe"]
    rank = {name: i for i, name in enumerate(probe_order(probes))}
    names = {s: i for i, s in enumerate(sorted(rows["source"].unique(), key=natural))}
    order = pd.DataFrame(
        {
            "sae": ~baseline(rows),
            "probe": probes.map(rank),
            "source": rows["source"].map(names),
        }
    )
    return order.sort_values(["sae", "probe", "source"], kind="stable").index


def best_by_validation(rows: pd.DataFrame) -> pd.DataFrame:
    """For each seed the probe with the best mean val_score, and its rows of that seed.

    rows: the candidates, of one metric, setting and condition; a probe is what agrees in PROBE. Means
    are over datasets, and only probes that cover the most datasets and labels are candidates. A seed's
    validation rows may be another seed's test rows, so that a choice by the mean over seeds would have
    seen what it is tested on: the test score of these rows has no such bias. Ties go to the first in
    the table.
    """
    known = rows[rows["val_score"].notna() & rows["test_score"].notna()]
    probe = known.groupby(PROBE, sort=False, dropna=False).ngroup()
    task = known.groupby(TASK, sort=False).ngroup()
    covered = task.groupby(probe).transform("nunique")
    known, probe = known[covered == covered.max()], probe[covered == covered.max()]
    metric = scores.metric_of(known)
    chosen = []
    for _, of_seed in known.groupby("seed", sort=False, dropna=False):
        means = of_seed.groupby(probe).apply(lambda r: per_dataset(r, "val_score").mean())
        means = scores.goodness(means, metric)
        best = means.index[means >= means.max() - TOLERANCE].min()
        chosen.append(of_seed[probe[of_seed.index] == best])
    return pd.concat(chosen) if chosen else known


def arms(rows: pd.DataFrame, ks: Iterable[int] = KS) -> dict[str, pd.DataFrame]:
    """The candidate sets to compare: the baselines, and with them each kind of SAE probe at `ks`.

    The names are "baselines" and "baselines + {method}". Where a method has none of these k, all of
    its k are candidates. SAE probes of groups without a baseline are left out; controls are no
    candidates.
    """
    rows = rows[~control(rows)]
    base, sparse = rows[baseline(rows)], rows[~baseline(rows)]
    groups = pd.MultiIndex.from_frame(base[[*TASK, "condition"]])
    there = pd.MultiIndex.from_frame(sparse[[*TASK, "condition"]]).isin(groups)
    found = {BASELINES: base}
    for method, mine in sparse[there].groupby("method", sort=True):
        some = mine[mine["k"].isin(list(ks))]
        found[f"{BASELINES} + {method}"] = pd.concat([base, mine if some.empty else some])
    return found


def over_labels(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Means of columns over datasets, conditions and seeds; a dataset's labels are averaged first."""
    by = [c for c in BY if c != "label"]
    return rows.groupby(by, dropna=False, sort=False)[list(columns)].mean().mean()


def quiver_table(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """The quiver of every setting and place with more than one candidate; columns QUIVER.

    test_score follows the tie rule `methods`, with its interval over datasets; the labels of a dataset
    are averaged first. tie_low and tie_high are the least and the most that any tie order gives;
    n_sae counts chosen SAE probes.
    """
    found = []
    for place, rows in table.groupby(SLICE, sort=False):
        for name, candidates in arms(rows).items():
            if len(named(candidates)[["probe", "source"]].drop_duplicates()) < 2:
                continue
            chosen = quiver(candidates)
            if chosen.empty:
                continue
            metric = scores.metric_of(chosen)
            means = per_dataset(chosen, "test_score")
            _, low, high = mean_interval(means, confidence, scores.span(metric))
            over = over_labels(chosen, ["test_score", "tie_low", "tie_high"])
            numbers = {
                "candidates": name,
                "n_datasets": len(means),
                "n_choices": len(chosen),
                "n_tied": int((chosen["n_tied"] > 1).sum()),
                "test_score": over["test_score"],
                "ci_low": low,
                "ci_high": high,
                "tie_low": over["tie_low"],
                "tie_high": over["tie_high"],
                "n_sae": int((~baseline(chosen)).sum()),
            }
            found.append({**dict(zip(SLICE, place, strict=True)), **numbers})
    rows = pd.DataFrame(found, columns=QUIVER)
    return sort_rows(
        rows.astype(dict.fromkeys([*SLICE, "candidates"], "str")), [*SLICE, "candidates"]
    )
