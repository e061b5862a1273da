"""Tables of LoRA probes: single runs, means with intervals and controls, what was refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from actprobe import store
from actprobe.errors import BadInput
from actprobe.lora import index, metrics, protocol
from actprobe.lora.catalog import CONTROLS, EVERY_LAYER, REPRESENTATIONS
from actprobe.lora.layout import TABLES
from actprobe.lora.probe import SCHEMA
from actprobe.results.layout import folder

CELL = ["setting", "protocol", "dataset", "source", "condition", "site", "method"]
_MOST = 20  # kinds of left-out tensors that are told
_COUNTS = ("n_train", "n_test", "n_columns", "n_constant", "n_repeated")
_MEANS = (
    "test_acc",
    "test_f1",
    "test_precision",
    "test_recall",
    "test_auc",
    "val_acc",
    "train_acc",
)
SUMMARY = [
    *CELL, "n_runs", *(c for m in _MEANS for c in (m, f"{m}_std")), "ci_low", "ci_high", "chance",
    *CONTROLS, *_COUNTS, "converged", "leak_fraction", "reason",
]  # fmt: skip


def make_tables(
    config: Mapping[str, Any],
    probes: Iterable[str],
    indexes: Iterable[str],
    features: Iterable[str],
) -> None:
    """Write all tables of the experiment from probe and index artefacts, and one features artefact
    per collection, which knows the files whose weights turned out unusable."""
    runs, skipped = collect(probes, config["experiment"])
    summary = summarise(runs, one_split(config))
    of_layers = summary["condition"] == EVERY_LAYER
    tables = {
        "runs": runs.drop(columns=["classes", "confusion"]),
        "summary": summary[~of_layers],
        "layers": summary[of_layers],
        "confusion": confusions(runs),
        "refused": pd.concat([refused(indexes), unusable(features), skipped], ignore_index=True),
    }
    for name, table in tables.items():
        path = Path(folder(config)) / TABLES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.6g")


def collect(probes: Iterable[str], experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of all probe artefacts, sorted, and the targets that stand for a bad input."""
    tables, skipped = [], []
    for path in probes:
        try:
            tables.append(store.read_table(path).to_pandas())
        except BadInput as e:
            skipped.append({"collection": Path(path).parent.name, "id": Path(path).name,
                            "reason": str(e)})  # fmt: skip
    rows = pd.concat(tables or [SCHEMA.empty_table().to_pandas()], ignore_index=True)
    order = {r: i for i, r in enumerate(REPRESENTATIONS)}
    rows = rows.assign(rank=rows["source"].map(order))
    rows = rows.sort_values(["setting", "dataset", "rank", *CELL, "seed"], kind="stable")
    rows.insert(0, "experiment", experiment)
    columns = ["collection", "id", "reason"]
    return rows.drop(columns="rank").reset_index(drop=True), pd.DataFrame(skipped, columns=columns)


def one_split(config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Names of probes and collection where all runs are tested on the same rows."""
    found = set()
    for name, entry in (config.get("lora_probes") or {}).items():
        fixed = entry["split"] or protocol.load(entry["protocol"])["split"]["seed"] != "per_run"
        found |= {(name, c) for c in entry["loras"] if fixed or config["loras"][c]["split"]}
    return found


def summarise(runs: pd.DataFrame, fixed: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """One row per cell: means and standard deviations (ddof 0) over runs, and the controls.

    ci_low, ci_high: `interval` of the mean accuracy; of a single run its own. For `fixed` (probes,
    collection) runs differ less than other test rows would make them: there it also covers the score
    interval of the mean. chance: always the largest class, or guessing where that is better. Columns
    recipe_only and norm_only: mean accuracy of the same method on the control (norm_only on the same
    layers).
    """
    found = []
    for cell, rows in runs.groupby(CELL, sort=False):
        fits = rows[rows["reason"] == ""]
        row = dict(zip(CELL, cell, strict=True)) | {"n_runs": len(fits)}
        for m in _MEANS:
            row[m] = fits[m].mean()
            row[f"{m}_std"] = fits[m].std(ddof=0)
        ratio = (fits["n_test"] / fits["n_train"]).mean()
        row["ci_low"], row["ci_high"] = (
            (fits["ci_low"].item(), fits["ci_high"].item())
            if len(fits) == 1
            else interval(fits["test_acc"].to_numpy(), ratio)
        )
        if len(fits) > 1 and (row["setting"], row["dataset"]) in fixed:
            low, high = metrics.wilson(row["test_acc"], int(fits["n_test"].iloc[0]))
            row["ci_low"], row["ci_high"] = min(row["ci_low"], low), max(row["ci_high"], high)
        guess = max((1 / len(json.loads(c)) for c in fits["classes"]), default=np.nan)
        row["chance"] = max(fits["chance"].mean(), guess)  # by groups, classes differ between sides
        row |= {k: fits[k].median() for k in _COUNTS}
        row["converged"] = fits["converged"].dropna().astype(float).mean()
        row["leak_fraction"] = fits["leak_fraction"].mean()
        row["reason"] = "; ".join(dict.fromkeys(r for r in rows["reason"] if r))
        found.append(row)
    table = pd.DataFrame(found, columns=SUMMARY)
    means = table.set_index(CELL)["test_acc"]
    for control in CONTROLS:
        table[control] = [_control(means, row, control) for row in table[CELL].to_dict("records")]
    return table


def _control(means: pd.Series, cell: Mapping[str, Any], control: str) -> float:
    """Mean accuracy of a control for a cell: the recipe has no layers."""
    at = dict(cell) | {"source": control}
    if control == "recipe_only":
        at |= {"condition": "all", "site": ""}
    return means.get(tuple(at[c] for c in CELL), np.nan)


def interval(values: np.ndarray, ratio: float) -> tuple[float, float]:
    """95 % interval of the mean accuracy of some runs whose splits share rows; NaN below two.

    ratio: test over training rows. Student's t with the variance of the mean taken as
    (1/runs + ratio)·s²: runs over the same rows are not independent (Nadeau and Bengio 2003,
    corrected resampled t-test).
    """
    if len(values) < 2:
        return np.nan, np.nan
    error = values.std(ddof=1) * np.sqrt(1 / len(values) + ratio)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return max(0.0, values.mean() - half), min(1.0, values.mean() + half)


def confusions(runs: pd.DataFrame) -> pd.DataFrame:
    """Confusion matrices summed over runs, one row per cell and pair of classes."""
    found = []
    fits = runs[(runs["reason"] == "") & (runs["condition"] != EVERY_LAYER)]
    for cell, rows in fits.groupby(CELL, sort=False):
        classes = json.loads(rows["classes"].iloc[0])
        total = np.sum([json.loads(c) for c in rows["confusion"]], axis=0)
        found += [
            {**dict(zip(CELL, cell, strict=True)), "true": a, "predicted": b, "n": total[i, j]}
            for i, a in enumerate(classes)
            for j, b in enumerate(classes)
        ]
    return pd.DataFrame(found, columns=[*CELL, "true", "predicted", "n"])


def refused(indexes: Iterable[str]) -> pd.DataFrame:
    """The files that were left out, with the reason, and the tensors that were left out of others."""
    found = []
    for path in indexes:
        name = Path(path).name.rsplit(".", 2)[0]
        try:
            loaded = index.load(path)
        except BadInput as e:
            found.append({"collection": name, "id": "", "reason": str(e)})
            continue
        why = loaded.refused
        found += [
            {"collection": name, "id": loaded["id"][i], "reason": why[i]}
            for i in np.flatnonzero(why != "")
        ]
        found += _incomplete(name, loaded["id"][why == ""], loaded["extra"][why == ""])
    return pd.DataFrame(found, columns=["collection", "id", "reason"])


def _incomplete(name: str, ids: np.ndarray, extra: np.ndarray) -> list[dict[str, str]]:
    """The commonest tensors that were left out of LoRAs, a row for those that lost the same."""
    counts = Counter(extra[extra != ""].tolist())
    found = [
        {
            "collection": name,
            "id": f"{n} LoRAs, e.g. {ids[extra == t][0]}",
            "reason": f"read without {t}",
        }
        for t, n in counts.most_common(_MOST)
    ]
    if others := counts.total() - sum(n for _, n in counts.most_common(_MOST)):
        found.append({"collection": name, "id": f"{others} LoRAs", "reason": "read without others"})
    return found


def unusable(features: Iterable[str]) -> pd.DataFrame:
    """The files whose header is fine and whose weights are not."""
    found = []
    for path in features:
        try:
            with store.open_h5(path) as f:
                ids = np.strings.decode(f["id"][:], "utf-8")
                reasons = np.strings.decode(f["reason"][:], "utf-8", "ignore")  # may be cut
        except BadInput:
            continue
        found += [
            {"collection": Path(path).parent.name, "id": ids[i], "reason": reasons[i]}
            for i in np.flatnonzero(reasons != "")
        ]
    return pd.DataFrame(found, columns=["collection", "id", "reason"])


def read_tables(config: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The written tables by name."""
    root = Path(folder(config))
    tables = {}
    for name, path in TABLES.items():
        table = pd.read_csv(root / path, keep_default_na=False, na_values=[""])
        for c in table.columns.intersection(["site", "reason"]):
            table[c] = table[c].astype(object).fillna("")
        tables[name] = table
    return tables
