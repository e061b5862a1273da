"""Which rows a figure or the report shows, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from actprobe.probes.columns import types
from actprobe.results import scores
from actprobe.results.stats import FEWEST
from actprobe.results.tables import TASK, method_rank, natural

READ = ["protocol", "setting", "metric", "model", "site", "position", "source"]
PART = ["protocol", "metric"]  # what is told and drawn together
CONTROL = "control_"  # methods of this prefix are checks, never candidates
EACH_K = ", k = "  # in the name of a probe of so many latents


def baseline(rows: pd.DataFrame) -> pd.Series:
    """True for probes of the activations themselves, False for probes of SAE latents [n]."""
    return rows["k"].isna() & ~rows["method"].str.startswith("ksparse")


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a number in the setting `normal`, or in the first setting where none is."""
    rows = table[table["test_score"].notna()]
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
    """The rows that stand for each protocol and metric: with a number, in one setting, at one condition.

    They have the columns `under`, the setting and condition in words, and `frame`, the protocol, that
    setting unless it is `normal`, and the metric where the protocol has several.
    """
    found = []
    several = table[table["test_score"].notna()].groupby("protocol")["metric"].nunique()
    for part in parts(table):
        rows = numbered(of_part(table, part))
        rows, under = at_one_condition(rows)
        words = [part[0], *([under] if under else [])]
        if several[part[0]] > 1:
            words.append(scores.metric_of(rows).label)
        found.append(rows.assign(under=under or rows["setting"].iloc[0], frame=", ".join(words)))
    return pd.concat(found) if found else table.iloc[:0].assign(under="", frame="")


def parts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The protocols and metrics of a table: those with most baseline probes first, then with most
    datasets."""
    rows = named(table[table["test_score"].notna()])
    counted = rows[baseline(rows)] if baseline(rows).any() else rows
    probes = counted.drop_duplicates([*READ, "probe"])[PART].value_counts()
    datasets = counted.groupby(PART)["dataset"].nunique()
    found = rows[PART].drop_duplicates().itertuples(index=False, name=None)
    return sorted(
        found, key=lambda p: (-probes.get(p, 0), -datasets.get(p, 0), natural(p[0]), p[1])
    )


def of_part(rows: pd.DataFrame, part: tuple[str, str]) -> pd.DataFrame:
    """The rows of one protocol and metric."""
    return rows[(rows["protocol"] == part[0]) & (rows["metric"] == part[1])]


def control(rows: pd.DataFrame) -> pd.Series:
    """True for checks such as shuffled labels, which are never candidates nor references [n]."""
    return rows["method"].str.startswith(CONTROL)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with a column `probe`: the method, with its k where it has one."""
    k = rows["k"].map(lambda k: "" if pd.isna(k) else f"{EACH_K}{k}")
    return rows.assign(probe=rows["method"] + k.astype(str))


def probe_order(probes: pd.Series) -> list[str]:
    """Probes in the order of the methods, then by k."""
    return sorted(probes.unique(), key=lambda s: (method_rank(s.partition(",")[0]), natural(s)))


def tasks(rows: pd.DataFrame) -> pd.Series:
    """What the probes are trained for, in words: the dataset, and the class against the others [n]."""
    label = ": " + rows["label"].astype("str")
    return (rows["dataset"] + label.where(rows["label"] != "", "")).astype("str")


def per_dataset(rows: pd.DataFrame, column: str) -> pd.Series:
    """Mean of a column by dataset; of a dataset with several labels the mean over their means."""
    return rows.groupby(TASK, sort=False)[column].mean().groupby("dataset", sort=False).mean()


def featured(table: pd.DataFrame) -> pd.DataFrame:
    """One place's rows, one row per dataset, label and probe: where most methods were tried.

    Among places with equally many methods the best mean val_score decides, never the test score.
    Seeds and conditions are averaged; `n_train`, `n_test` and the like are those of the first row.
    The result has the columns `probe`, `task`, `under` and `frame`.
    """
    return at_fullest(usual(table))


def at_fullest(rows: pd.DataFrame) -> pd.DataFrame:
    """The same, of rows of `usual`."""
    rows = named(rows)
    if rows.empty:
        return rows.assign(task="")
    baselines = rows[baseline(rows)]
    rows = rows if baselines.empty else baselines
    metrics = {m: scores.known(m) for m in rows["metric"].unique()}
    sign = rows["metric"].map({m: scores.goodness(1, known) for m, known in metrics.items()})
    places = (
        rows.assign(val=sign * rows["val_score"])
        .groupby(READ, sort=True)
        .agg(methods=("probe", "nunique"), datasets=("dataset", "nunique"), val=("val", "mean"))
    )
    best = places.sort_values(["methods", "datasets", "val"], ascending=False, kind="stable").index[
        0
    ]
    chosen = rows[(rows[READ] == list(best)).all(axis=1)]
    numbers = [c for c, kind in types().items() if kind == "float64"]
    how = {c: "mean" if c in [*numbers, "gain"] else "first" for c in chosen.columns}
    chosen = chosen.groupby([*TASK, "probe"], sort=False).agg(how).reset_index(drop=True)
    return chosen.assign(task=tasks(chosen))


def place_name(row: pd.Series) -> str:
    """The place of a row in words: model, site and position, behind the SAE's name if there is one."""
    read = ", ".join(str(row[c]) for c in ("model", "site", "position") if row[c])
    own = f"{row['model']}/{row['site']}.{row['position']}"
    if row["source"] in (own, read, "") or not read:
        return read or str(row["source"])
    return f"{row['source']} ({read})"


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


def layer_of(site: str) -> int | None:
    """The layer number in a site ("resid_post.3" -> 3), -1 for the embedding, None otherwise."""
    if site == "embed":
        return -1
    found = re.search(r"\.(\d+)$", site)
    return int(found[1]) if found else None
