"""Tables of LoRA probes: single runs, means with intervals and controls, what was refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actprobe import csvs, provenance, store
from actprobe.errors import BadInput
from actprobe.lora import index, protocol
from actprobe.lora.catalog import CONTROLS, EVERY_LAYER, REPRESENTATIONS
from actprobe.lora.inference import chosen, interval, simultaneous, wilson
from actprobe.lora.layout import TABLES
from actprobe.lora.probe import SCHEMA
from actprobe.results.layout import folder

_TEXT = ["experiment", "setting", "protocol", "dataset", "source", "condition", "site", "method"]
_TEXT += ["reason", "params", "key", "outliers", "most", "true", "predicted", "collection", "id"]
_TEXT += provenance.COLUMNS
_WHERE = ["setting", "dataset"]
CELL = ["setting", "protocol", "dataset", "source", "condition", "site", "method"]
_MOST = 20  # kinds of left-out tensors that are told
_BESIDE = [*(c for c in CELL if c not in ("source", "method")), "method"]  # a control's cell
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
    *CONTROLS, *_COUNTS, "converged", "leak_fraction", "looks", "outliers", "reason",
]  # fmt: skip
CHOICES = [
    *_WHERE, "n_runs", "among", "most", "of_runs", "test_acc", "ci_low", "ci_high", "chance", *CONTROLS,
]  # fmt: skip


def make_tables(
    config: Mapping[str, Any],
    probes: Iterable[str],
    indexes: Iterable[str],
    features: Iterable[str],
    origin: Mapping[str, Any] = provenance.NOWHERE,
) -> None:
    """Write all tables of the experiment from probe and index artefacts, and one features artefact
    per collection, which knows the files whose weights turned out unusable.

    origin: what `provenance.origin` says.
    """
    runs, skipped = collect(probes, config["experiment"])
    summary = summarise(runs, one_split(config))
    of_layers = summary["condition"] == EVERY_LAYER
    tables = {
        "runs": runs.drop(columns=["classes", "confusion"]),
        "summary": summary[~of_layers],
        "layers": summary[of_layers],
        "choices": choices(runs, one_split(config)),
        "confusion": confusions(runs),
        "refused": pd.concat([refused(indexes), unusable(features), skipped], ignore_index=True),
        "provenance": provenance.table(origin, runs["key"], config),
    }
    for name, table in tables.items():
        path = Path(folder(config)) / TABLES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        csvs.write(table, path, float_format="%.6g")


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
    interval of the mean. Single modules, and the methods of recipe_only, are looked at together for
    the best: their intervals are `simultaneous` over as many as `looks` says. chance: always the
    largest class, or guessing where that is better. Column norm_only: mean accuracy of the same method
    on that control and the same layers (of the best one, where the method reads the recipe alone);
    recipe_only: the largest mean accuracy of all methods on it.
    """
    table = pd.DataFrame(
        [_cell(cell, rows, fixed) for cell, rows in runs.groupby(CELL, sort=False)], columns=SUMMARY
    )
    table["looks"] = _looks(table)
    for i in table.index[(table["looks"] > 1) & table["test_acc"].notna()]:
        share, n_test, looks = table.loc[i, ["test_acc", "n_test", "looks"]]
        table.loc[i, ["ci_low", "ci_high"]] = simultaneous(share, int(n_test), int(looks))
    recipe = _recipe(table)
    table["recipe_only"] = [recipe.get((s, d), np.nan) for s, d in table[_WHERE].to_numpy()]
    norm = table[table["source"] == "norm_only"]
    means, best = (norm.groupby(keys)["test_acc"].max() for keys in (_BESIDE, _BESIDE[:-1]))
    table["norm_only"] = [
        means.get(tuple(at), best.get(tuple(at[:-1]), np.nan)) for at in table[_BESIDE].to_numpy()
    ]
    return table


def _cell(cell: tuple, rows: pd.DataFrame, fixed: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The row of `summarise` for the runs of one cell."""
    fits = rows[rows["reason"] == ""]
    row = dict(zip(CELL, cell, strict=True)) | {"n_runs": len(fits)}
    for m in _MEANS:
        row[m] = fits[m].mean()
        row[f"{m}_std"] = fits[m].std(ddof=0)
    row["ci_low"], row["ci_high"] = _interval(fits, (row["setting"], row["dataset"]) in fixed)
    row["chance"] = _chance(fits)
    row |= {k: fits[k].median() for k in _COUNTS}
    row["converged"] = fits["converged"].dropna().astype(float).mean()
    row["leak_fraction"] = fits["leak_fraction"].mean()
    row["outliers"] = ", ".join(dict.fromkeys(i for o in fits["outliers"] for i in json.loads(o)))
    row["reason"] = "; ".join(dict.fromkeys(r for r in rows["reason"] if r))
    return row


def _interval(fits: pd.DataFrame, fixed: bool) -> tuple[float, float]:
    """The interval of the mean accuracy of some runs, as `summarise` has it."""
    if len(fits) == 1:
        return fits["ci_low"].item(), fits["ci_high"].item()
    low, high = interval(fits["test_acc"].to_numpy(), (fits["n_test"] / fits["n_train"]).mean())
    if len(fits) > 1 and fixed:
        least, most = wilson(fits["test_acc"].mean(), int(fits["n_test"].iloc[0]))
        low, high = min(low, least), max(high, most)
    return low, high


def _chance(fits: pd.DataFrame) -> float:
    """Always the largest class, or guessing; by groups, classes differ between sides."""
    guess = max((1 / len(json.loads(c)) for c in fits["classes"].unique()), default=np.nan)
    return max(fits["chance"].mean(), guess)


def _looks(table: pd.DataFrame) -> pd.Series:
    """Among how many cells each is looked at: single modules, and methods of the recipe."""
    control = table["source"].isin(CONTROLS)
    each, recipe = table["condition"] == EVERY_LAYER, table["source"] == "recipe_only"
    looks = pd.Series(1, table.index)
    for these in (each & ~control, each & control, recipe):
        if these.any():
            looks[these] = table[these].groupby(_WHERE)["n_runs"].transform("size")
    return looks


def _recipe(table: pd.DataFrame) -> pd.Series:
    """The largest mean accuracy of all methods on the recipe, by probes and collection."""
    return table[table["source"] == "recipe_only"].groupby(_WHERE)["test_acc"].max()


def choices(runs: pd.DataFrame, fixed: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """What choosing a representation, layers and method by validation reaches, per collection.

    Every run chooses by its own validation rows (`chosen`), and is tested on rows that played no
    part in it. most: the commonest choice, of_runs: how many runs made it, among: cells to choose
    from. Columns of controls: what choosing among their cells reaches; recipe_only the largest mean.
    """
    fits = runs[(runs["reason"] == "") & (runs["condition"] != EVERY_LAYER)]
    recipe = _recipe(summarise(fits, fixed))
    norm = chosen(fits[fits["source"] == "norm_only"], _WHERE).groupby(_WHERE)["test_acc"].mean()
    found = []
    read = fits[~fits["source"].isin(CONTROLS)]
    for at, rows in chosen(read, _WHERE).groupby(_WHERE, sort=False):
        cells = rows[["source", "condition", "method"]].agg(", ".join, axis=1)
        low, high = _interval(rows, at in fixed)
        of_all = read[(read[_WHERE] == list(at)).all(axis=1)]
        found.append(
            dict(zip(_WHERE, at, strict=True))
            | {"n_runs": len(rows), "among": of_all.groupby(CELL).ngroups,
               "most": cells.mode().iloc[0], "of_runs": int((cells == cells.mode().iloc[0]).sum()),
               "test_acc": rows["test_acc"].mean(), "ci_low": low, "ci_high": high,
               "chance": _chance(rows), "recipe_only": recipe.get(at, np.nan),
               "norm_only": norm.get(at, np.nan)}
        )  # fmt: skip
    return pd.DataFrame(found, columns=CHOICES)


def confusions(runs: pd.DataFrame) -> pd.DataFrame:
    """Confusion matrices summed over runs: a row for every pair of classes that occurs in a cell."""
    found = []
    fits = runs[(runs["reason"] == "") & (runs["condition"] != EVERY_LAYER)]
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
            "id": (f"{n} LoRAs, e.g. " if n > 1 else "") + ids[extra == t][0],
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
    return {name: csvs.read(root / path, _TEXT) for name, path in TABLES.items()}
