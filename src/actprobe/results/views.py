"""Which rows a figure or the report shows, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from actprobe.results.stats import FEWEST
from actprobe.results.tables import method_rank, natural

READ = ["protocol", "setting", "model", "site", "position", "source"]


CONTROL = "control_"  # methods of this prefix are checks, never candidates
EACH_K = ", k = "  # in the label of a probe of so many latents


def baseline(rows: pd.DataFrame) -> pd.Series:
    """True for probes of the activations themselves, False for probes of SAE latents [n]."""
    return rows["k"].isna() & ~rows["method"].str.startswith("ksparse")


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a number in the setting `normal`, or in the first setting where none is."""
    rows = table[table["test_auc"].notna()]
    if rows.empty:
        return rows
    settings = sorted(rows["setting"].unique(), key=lambda s: (s != "normal", s))
    return rows[rows["setting"] == settings[0]]


# The condition of a setting that is most like `normal`; of `scarcity` the most training rows.
_USUAL = {"scarcity": 1e9, "imbalance": 0.5, "label_noise": 0.0}


def at_one_condition(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of one setting at the condition that stands for it, and its name in words.

    Among the conditions that most datasets have, the one most like `normal`. Settings whose
    conditions are no scale (`ood` names test sets) are averaged over them: the name is the
    setting's; for `normal` it is empty.
    """
    setting = rows["setting"].iloc[0]
    value = pd.to_numeric(rows["condition"], errors="coerce")
    if setting not in _USUAL or value.isna().any():
        return rows.assign(condition=""), "" if setting == "normal" else str(setting)
    datasets = rows.groupby("condition")["dataset"].nunique()
    most = datasets.index[datasets == datasets.max()]
    usual = min(most, key=lambda c: abs(float(c) - _USUAL[setting]))
    return rows[rows["condition"] == usual], f"{setting} {usual}"


def usual(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for each protocol: with a number, in one setting, at one condition.

    They have a column `under`, the setting and condition in words.
    """
    found = []
    for protocol in protocols(table):
        rows = numbered(table[table["protocol"] == protocol])
        if len(rows):
            rows, under = at_one_condition(rows)
            found.append(rows.assign(under=under or rows["setting"].iloc[0]))
    return pd.concat(found) if found else table.iloc[:0].assign(under="")


def protocols(table: pd.DataFrame) -> list[str]:
    """The protocols of a table: those with most baseline probes first, then with most datasets."""
    rows = labelled(table[table["test_auc"].notna()])
    counted = rows[baseline(rows)] if baseline(rows).any() else rows
    probes = counted.drop_duplicates([*READ, "label"])["protocol"].value_counts()
    datasets = counted.groupby("protocol")["dataset"].nunique()
    return sorted(
        rows["protocol"].unique(),
        key=lambda p: (-probes.get(p, 0), -datasets.get(p, 0), natural(p)),
    )


def control(rows: pd.DataFrame) -> pd.Series:
    """True for checks such as shuffled labels, which are never candidates nor references [n]."""
    return rows["method"].str.startswith(CONTROL)


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with a column `label`: the method, with its k where it has one."""
    k = rows["k"].map(lambda k: "" if pd.isna(k) else f"{EACH_K}{k}")
    return rows.assign(label=rows["method"] + k.astype(str))


def label_order(labels: pd.Series) -> list[str]:
    """Labels in the order of the methods, then by k."""
    return sorted(labels.unique(), key=lambda s: (method_rank(s.partition(",")[0]), natural(s)))


def featured(table: pd.DataFrame) -> pd.DataFrame:
    """One place's rows, one row per dataset and method: where most methods were tried.

    Among places with equally many methods the highest mean val_auc decides, never the test AUC.
    Seeds and conditions are averaged; `n_train`, `n_test` and the like are those of the first row.
    The result has the columns `label` and `under`.
    """
    rows = labelled(usual(table))
    if rows.empty:
        return rows
    baselines = rows[baseline(rows)]
    rows = rows if baselines.empty else baselines
    places = rows.groupby(READ, sort=True).agg(
        methods=("label", "nunique"), datasets=("dataset", "nunique"), val=("val_auc", "mean")
    )
    best = places.sort_values(["methods", "datasets", "val"], ascending=False, kind="stable").index[
        0
    ]
    chosen = rows[(rows[READ] == list(best)).all(axis=1)]
    mean = ["val_auc", "test_auc", "test_acc", "test_f1", "ci_low", "ci_high", "leak_fraction"]
    mean += ["test_auc_unseen", "group_fraction", "gain"]
    how = {c: "mean" if c in mean else "first" for c in chosen.columns}
    return chosen.groupby(["dataset", "label"], sort=False).agg(how).reset_index(drop=True)


def place_name(row: pd.Series) -> str:
    """The place of a row in words: model, site and position, behind the SAE's name if there is one."""
    read = ", ".join(str(row[c]) for c in ("model", "site", "position") if row[c])
    own = f"{row['model']}/{row['site']}.{row['position']}"
    if row["source"] in (own, read, "") or not read:
        return read or str(row["source"])
    return f"{row['source']} ({read})"


def frame(row: pd.Series) -> str:
    """The protocol and the setting of a row of `usual` in words."""
    under = "" if row["under"] == "normal" else f", {row['under']}"
    return f"{row['protocol']}{under}"


def over_datasets(n: int, confidence: float) -> str:
    """What the interval of a mean over n datasets is called, or that there is none."""
    if n < FEWEST:
        return f"without an interval: it takes {FEWEST} datasets"
    return f"with a {confidence:.0%} interval over datasets"


def differing(rows: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Those of the columns in which the rows differ."""
    return [c for c in columns if rows[c].nunique(dropna=False) > 1]


def count(n: int, noun: str) -> str:
    """ "1 dataset", "12 datasets"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
