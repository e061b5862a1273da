"""Choosing a method by validation: the "quiver of arrows" and its ties.

Kantamneni et al. 2025 (arXiv 2502.16681), section 3: for every dataset the method with the highest
validation AUC is chosen and its test AUC reported. Validation sets are small, so many methods tie;
the rule that breaks ties is part of the result, and the band over all tie orders belongs beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.tables import natural, sort_rows
from actprobe.results.views import baseline, control, label_order, labelled

BY = ("dataset", "condition", "seed")
SLICE = ["experiment", "protocol", "setting", "model", "site", "position"]
PROBE = [*SLICE, "source", "method", "k"]
TIES = {
    "methods": "baselines first (logreg, pca, knn, xgboost, mlp), then smaller k, then name",
    "rows": "the first row of the table",
}
# Validation AUCs closer than this are equal: they are averages of fractions with small
# denominators, whose last digits depend on the order of a sum or on how a file was read.
TOLERANCE = 1e-9
KS = (16, 128)
BASELINES = "baselines"
QUIVER = [*SLICE, "candidates", "n_datasets", "n_choices", "n_tied"]
QUIVER += ["test_auc", "ci_low", "ci_high", "tie_low", "tie_high", "n_sae"]


def quiver(
    rows: pd.DataFrame,
    by: Sequence[str] = BY,
    ties: str = "methods",
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """The row with the highest val_auc of every group, with what the other tie orders would give.

    rows: the candidates of one comparison (tidy columns); those without val_auc or test_auc cannot
    be chosen. ties: a rule of TIES. tolerance: val_auc within it of the highest are tied.
    Returns one row per group in order of appearance, with the added columns n_tied (1: no tie) and
    tie_low, tie_high, tie_mean: lowest, highest and mean test_auc of the tied rows.
    """
    if ties not in TIES:
        raise ValueError(f"no tie rule {ties!r}; expected one of {', '.join(TIES)}")
    known = rows[rows["val_auc"].notna() & rows["test_auc"].notna()]
    group = known.groupby(list(by), dropna=False, sort=False)
    tied = known[known["val_auc"] >= group["val_auc"].transform("max") - tolerance]
    spread = tied.groupby(list(by), dropna=False, sort=False)["test_auc"]
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
    labels = labelled(rows)["label"]
    rank = {name: i for i, name in enumerate(label_order(labels))}
    names = {s: i for i, s in enumerate(sorted(rows["source"].unique(), key=natural))}
    order = pd.DataFrame(
        {
            "sae": ~baseline(rows),
            "label": labels.map(rank),
            "source": rows["source"].map(names),
        }
    )
    return order.sort_values(["sae", "label", "source"], kind="stable").index


def best_by_validation(rows: pd.DataFrame) -> pd.DataFrame:
    """For each seed the probe with the highest mean val_auc, and its rows of that seed.

    rows: the candidates, of one setting and condition; a probe is what agrees in PROBE. Means are over
    datasets, and only probes that cover the most datasets are candidates. A seed's validation rows
    may be another seed's test rows, so that a choice by the mean over seeds would have seen what it is
    tested on: the test AUC of these rows has no such bias. Ties go to the first in the table.
    """
    known = rows[rows["val_auc"].notna() & rows["test_auc"].notna()]
    probe = known.groupby(PROBE, sort=False, dropna=False).ngroup()
    covered = known.groupby(probe)["dataset"].transform("nunique")
    known, probe = known[covered == covered.max()], probe[covered == covered.max()]
    chosen = []
    for _, of_seed in known.groupby("seed", sort=False, dropna=False):
        means = of_seed["val_auc"].groupby(probe).mean()
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
    groups = pd.MultiIndex.from_frame(base[["dataset", "condition"]])
    there = pd.MultiIndex.from_frame(sparse[["dataset", "condition"]]).isin(groups)
    found = {BASELINES: base}
    for method, mine in sparse[there].groupby("method", sort=True):
        some = mine[mine["k"].isin(list(ks))]
        found[f"{BASELINES} + {method}"] = pd.concat([base, mine if some.empty else some])
    return found


def quiver_table(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """The quiver of every setting and place with more than one candidate; columns QUIVER.

    test_auc follows the tie rule `methods`, with its interval over datasets; tie_low and
    tie_high are the least and the most that any tie order gives; n_sae counts chosen SAE probes.
    """
    found = []
    for place, rows in table.groupby(SLICE, sort=False):
        for name, candidates in arms(rows).items():
            if len(labelled(candidates)[["label", "source"]].drop_duplicates()) < 2:
                continue
            chosen = quiver(candidates)
            if chosen.empty:
                continue
            per_dataset = chosen.groupby("dataset")["test_auc"].mean()
            _, low, high = mean_interval(per_dataset, confidence)
            numbers = {
                "candidates": name,
                "n_datasets": len(per_dataset),
                "n_choices": len(chosen),
                "n_tied": int((chosen["n_tied"] > 1).sum()),
                "test_auc": chosen["test_auc"].mean(),
                "ci_low": low,
                "ci_high": high,
                "tie_low": chosen["tie_low"].mean(),
                "tie_high": chosen["tie_high"].mean(),
                "n_sae": int((~baseline(chosen)).sum()),
            }
            found.append({**dict(zip(SLICE, place, strict=True)), **numbers})
    rows = pd.DataFrame(found, columns=QUIVER)
    return sort_rows(
        rows.astype(dict.fromkeys([*SLICE, "candidates"], "str")), [*SLICE, "candidates"]
    )
