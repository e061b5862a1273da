"""The tidy table: one row per fit, collected from probe results, checked, sorted and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import store
from actprobe.probes import door
from actprobe.probes.columns import NAMED, types
from actprobe.probes.kinds import KINDS, ONE_VS_REST
from actprobe.probes.metrics import all_metrics
from actprobe.results import csvs, scores
from actprobe.results.stats import CONFIDENCE, mean_interval

SCORES = ["train_score", "val_score", "test_score", "ci_low", "ci_high", "test_score_unseen"]
SHARES = ["leak_fraction", "group_fraction", "chance"]
METHODS = [
    "logreg",
    "ridge",
    "pca",
    "knn",
    "xgboost",
    "mlp",
    "attention",
]  # the order of tables and figures
PLACE = ["experiment", "protocol", "setting", "metric", "model", "site", "position", "source"]
PLACE += ["condition"]
TASK = ["dataset", "label"]  # what a probe is trained for
IDENTITY = [*PLACE, "columns", *TASK, "method", "k", "seed"]
_MEANS = ["test_score", "val_score", "leak_fraction", "group_fraction"]
_MEANS += ["test_score_unseen", "chance"]
SKIPPED = ["dataset", "label", "protocol", "setting", "source", "method", "reason", "fits"]
DATASETS = ["dataset", "n", "sampled_from", "texts", "multiline", "classes", "duplicates"]
DATASETS += ["conflicting", "unfinished", "truncated", "special_in_text", "read_by", "reason"]
DATASETS += ["provenance"]

_SKIPPED_TYPES = {c: "Int64" if c == "fits" else "str" for c in SKIPPED}
_ROUNDING = 1e-9  # a mean of ones may come out as 1.0000000000000002
_ARROW = {"str": pa.string(), "Int64": pa.int64(), "float64": pa.float64(), "boolean": pa.bool_()}


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that reads numbers as numbers: "5_a" before "100_b", "0.05" before "0.5"."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(pieces) if p)


def method_rank(method: str) -> tuple[int, str]:
    """Sort key of a method: the known ones in their usual order, then the others by name."""
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def sort_rows(table: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Rows in natural order of these columns, with a fresh index."""
    codes = {}
    for column in by:
        if table[column].dtype == "str":
            key = method_rank if column == "method" else natural
            ordered = sorted(table[column].unique(), key=key)
            codes[column] = table[column].map({v: i for i, v in enumerate(ordered)})
        else:
            codes[column] = table[column]
    order = pd.DataFrame(codes).sort_values(list(codes), kind="stable", na_position="first").index
    return table.loc[order].reset_index(drop=True)


def tidy(rows: pd.DataFrame, origin: str = "the table") -> pd.DataFrame:
    """`rows` with exactly the tidy columns first (extra ones follow by name), typed and sorted.

    Text columns that are missing become empty, numbers become null. Raises ActprobeError naming
    the first rows that are no valid result: a number outside its metric's range, no number and no
    reason, an empty dataset or method, a label kind or metric that is none, or two rows for one fit.
    """
    kinds = types()
    extra = sorted(set(rows.columns) - set(kinds))
    table = rows.reset_index(drop=True).reindex(columns=[*kinds, *extra])
    for column, kind in kinds.items():
        values = table[column]
        if kind == "str":
            values = values.astype(object).where(values.notna(), "")
        try:
            table[column] = values.astype(kind)
        except (TypeError, ValueError) as e:
            raise ActprobeError(f"{origin}: column {column} is not {kind}: {e}") from e
    _check(table, origin)
    return sort_rows(table, IDENTITY)


def _check(table: pd.DataFrame, origin: str) -> None:
    for column in ["dataset", "method", "setting", "source", "protocol"]:
        _refuse(table[table[column] == ""], origin, f"{column} must not be empty")
    what = f"kind must be one of {', '.join(KINDS)}"
    _refuse(table[~table["kind"].isin(KINDS)], origin, what, ["kind"])
    for column in SHARES:
        _check_range(table, column, (0.0, 1.0), origin)
    for metric in all_metrics().values():
        _check_range(table, metric.column, scores.span(metric), origin)
    for name, rows in table.groupby("metric", sort=False):
        metric = scores.known(str(name), origin)
        for column in SCORES:
            _check_range(rows, column, scores.span(metric), origin)
    silent = table["test_score"].isna() & (table["reason"] == "")
    _refuse(table[silent], origin, "no test_score and no reason")
    twice = table.duplicated(IDENTITY, keep=False)
    _refuse(table[twice], origin, "two rows for one fit", ["key"])


def _check_range(rows: pd.DataFrame, column: str, within: scores.Range, origin: str) -> None:
    low, high = within
    slack = _ROUNDING * np.maximum(1.0, rows[column].abs())
    outside = rows[column].notna() & ~rows[column].between(low - slack, high + slack)
    ends = f"{'[' if math.isfinite(low) else '('}{low:g}, {high:g}{']' if math.isfinite(high) else ')'}"
    _refuse(rows[outside], origin, f"{column} must lie in {ends}", [column])


def _refuse(rows: pd.DataFrame, origin: str, what: str, show: Iterable[str] = ()) -> None:
    if rows.empty:
        return
    named = ["setting", "condition", "source", "dataset", "label", "method", "k", *show]
    first = "; ".join(
        ", ".join(f"{c}={row[c]}" for c in named if not pd.isna(row[c]) and row[c] != "")
        for _, row in rows.head(3).iterrows()
    )
    raise ActprobeError(f"{origin}: {what}: {len(rows)} rows, first {first}")


def collect(paths: Iterable[str | Path], experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy table of these probe artefacts, and the skipped ones with their reasons.

    Returns (table, skipped): `table` has the columns of `types` plus any extra ones of the artefacts,
    `skipped` the columns SKIPPED, one row per tombstone (see `without_number`). Raises ActprobeError
    when a table lacks a column that is no metric's, Damaged when an artefact is.
    """
    tables, skipped = [], []
    needed = [c for c in NAMED if c != "experiment"]
    for path in map(str, paths):
        try:
            t = door.told(path)
        except BadInput as e:
            skipped.append({**_place(path, store.read_header(path)["spec"]), "reason": str(e)})
            continue
        lacking = [c for c in needed if c not in t.column_names]
        if lacking:
            raise ActprobeError(f"{path}: no column {', '.join(lacking)}; found {t.column_names}")
        tables.append(t)
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    frame = rows.to_pandas(types_mapper=_NULLABLE.get)
    table = tidy(frame.assign(experiment=experiment), "the probe results")
    left_out = pd.DataFrame(skipped, columns=SKIPPED).astype(_SKIPPED_TYPES)
    return table, sort_rows(left_out, SKIPPED)


def without_number(table: pd.DataFrame, skipped: pd.DataFrame) -> pd.DataFrame:
    """Everything that has no number and why: columns SKIPPED.

    Besides `skipped`, the targets that could not be made, whose `fits` is null, one row for the fits
    of a target that share a reason; `fits` is their number.
    """
    missing = table[table["test_score"].isna()]
    where = [c for c in SKIPPED if c != "fits"]
    counted = missing.groupby(where, sort=False).size().reset_index(name="fits")
    rows = pd.concat([skipped, counted.reindex(columns=SKIPPED)], ignore_index=True)
    return sort_rows(rows.astype(_SKIPPED_TYPES), SKIPPED)


_NULLABLE = {
    **dict.fromkeys([pa.int32(), pa.int64()], pd.Int64Dtype()),
    pa.bool_(): pd.BooleanDtype(),
}


def _place(path: str, spec: Mapping[str, str]) -> dict[str, str]:
    """What a tombstone stands for: …/probes/{protocol}/{setting}/{source}/{dataset}.{method}.…"""
    place = {c: spec[c] for c in ("protocol", "setting", "method")}
    below = path.rpartition(f"/probes/{place['protocol']}/{place['setting']}/")[2]
    source, _, name = below.rpartition("/")
    dataset = name.rsplit(".", 3)[0]
    if "columns" in spec:
        dataset = dataset.partition("@")[0]
    if spec.get("labels") == ONE_VS_REST:
        dataset = dataset.removesuffix(f".{ONE_VS_REST}")
    return {**place, "source": source, "dataset": dataset, "label": ""}


def summarise(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Means over datasets per place, method and k, with the interval of the mean test score.

    Seeds, and then the labels of a dataset, are averaged within a dataset first, so that a dataset
    counts once. Every registered metric has a mean, over the datasets that have it. `n_datasets` counts
    the datasets with a number, `n_tasks` the pairs of dataset and label with one, `n_without` the rows
    without a number, `n_unconverged` the fits whose solver stopped early.
    """
    group = [*PLACE, "method", "k"]
    values = [*_MEANS[:2], *(m.column for m in all_metrics().values()), *_MEANS[2:]]
    per_task = table.groupby([*group, *TASK], dropna=False, sort=False)[values].mean()
    levels = [*group, "dataset"]
    grouped = (
        per_task.groupby(levels, dropna=False, sort=False)
        .mean()
        .groupby(group, dropna=False, sort=False)
    )
    summary = grouped.mean()
    at = PLACE.index("metric")
    bounds = [
        mean_interval(v, confidence, scores.span(scores.known(str(key[at]))))[1:]
        for key, v in grouped["test_score"]
    ]
    labels = per_task["test_score"].groupby(group, dropna=False, sort=False).count()
    summary.insert(0, "n_datasets", grouped["test_score"].count())
    summary.insert(1, "n_tasks", labels)
    summary.insert(3, "ci_low", [low for low, _ in bounds])
    summary.insert(4, "ci_high", [high for _, high in bounds])
    flags = table.assign(
        n_without=table["test_score"].isna(),
        n_unconverged=table["converged"].eq(False).fillna(False).astype(bool),
    )
    counted = ["n_without", "n_unconverged"]
    counts = flags.groupby(group, dropna=False, sort=False)[counted].sum()
    return sort_rows(pd.concat([summary, counts], axis=1).reset_index(), group)


def dataset_table(
    datasets: Iterable[Mapping[str, Any]], reads: Iterable[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """One row per dataset with the columns DATASETS, from what `texts.describe` says of each.

    `classes` (name -> rows) becomes "name (rows) | …", `bad` the `reason`, `provenance` JSON.
    reads: what `provenance.facts` says of each dataset and model. truncated: share of the rows that a
    model read cut short, of several models the largest; special_in_text: rows that spell out special
    tokens, likewise; read_by: both by model. They are null where no activation file says so.
    """
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for r in reads:
        if r["n_truncated"] is not None:
            by_dataset.setdefault(r["dataset"], []).append(r)
    numbers = ["n", "sampled_from", "texts", "multiline", "duplicates", "conflicting", "unfinished"]
    rows = [
        {
            **{c: d.get(c) for c in ("dataset", *numbers)},
            "classes": " | ".join(f"{c} ({n})" for c, n in (d.get("classes") or {}).items()),
            **_as_read(d.get("n"), by_dataset.get(d["dataset"], [])),
            "reason": d.get("bad") or "",
            "provenance": json.dumps(d.get("provenance") or {}, sort_keys=True, ensure_ascii=False),
        }
        for d in datasets
    ]
    types = dict.fromkeys([*numbers, "special_in_text"], "Int64") | {"truncated": "float64"}
    table = pd.DataFrame(rows, columns=DATASETS)
    return sort_rows(table.astype({c: types.get(c, "str") for c in DATASETS}), ["dataset"])


def _as_read(n: int | None, reads: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The columns truncated, special_in_text and read_by of a dataset of n rows."""
    told, truncated, special = [], [], []
    for r in reads:
        of = r["n_rows"] or n or 0
        words = f"{r['n_truncated']} of {of} cut short"
        truncated.append(r["n_truncated"] / max(of, 1))
        if r["n_special_in_text"] is not None:
            special.append(r["n_special_in_text"])
            words += f", {r['n_special_in_text']} with special tokens"
        told.append(f"{r['model']} ({words})")
    return {
        "truncated": max(truncated, default=None),
        "special_in_text": max(special, default=None),
        "read_by": " | ".join(told),
    }


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a tidy table; no dates and no index, so that equal tables are equal files."""
    kinds = types()
    arrays = {c: pa.array(table[c], from_pandas=True) for c in table.columns}
    typed = {c: a.cast(_ARROW[kinds[c]]) if c in kinds else a for c, a in arrays.items()}
    pq.write_table(pa.table(typed), path, compression="zstd")


def read_probes(path: str | Path) -> pd.DataFrame:
    """The tidy table from its .parquet or .csv file; raises ActprobeError when it is not one."""
    path = Path(path)
    if path.suffix == ".parquet":
        return tidy(pq.read_table(path).to_pandas(types_mapper=_NULLABLE.get), str(path))
    text = [c for c, kind in types().items() if kind == "str"]
    return tidy(csvs.read(path, [*text, "origin", "note"]), str(path))
