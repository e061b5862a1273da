"""The page of the LoRA results: what the classifiers reach, the controls, what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from actprobe import pages
from actprobe.lora.catalog import CONTROLS
from actprobe.lora.layout import FIGURES, REPORT, TABLES
from actprobe.lora.results import read_tables
from actprobe.results.layout import folder

_TEXT = {
    "setting": "probes",
    "dataset": "collection",
    "source": "representation",
    "condition": "layers",
    "method": "method",
}
_SCORES = {
    "test_acc": "accuracy",
    "chance": "chance",
    "recipe_only": "recipe_only",
    "norm_only": "norm_only",
    "test_f1": "macro F1",
    "test_auc": "AUC",
    "train_acc": "on train rows",
}
_COUNTS = {
    "n_train": "train LoRAs",
    "n_test": "test LoRAs",
    "n_columns": "columns",
    "n_constant": "constant",
    "n_repeated": "repeated",
}


def headline(summary: pd.DataFrame) -> list[str]:
    """A few lines: per collection the best cell by validation, its controls, and leaks."""
    rows = summary[summary["test_acc"].notna()]
    lines = []
    for (setting, dataset), part in rows.groupby(["setting", "dataset"], sort=False):
        read = part[~part["source"].isin(CONTROLS)]
        if read.empty:
            continue
        best = read.loc[read["val_acc"].idxmax()]
        lines.append(
            f"{setting}, {dataset}: {best['source']} of layers {best['condition']} with "
            f"{best['method']} reaches a mean test accuracy of {best['test_acc']:.3f} (95 % interval "
            f"{best['ci_low']:.3f} to {best['ci_high']:.3f}), the best of {len(read)} by validation "
            f"(chance {best['chance']:.3f}, recipe_only "
            f"{best['recipe_only']:.3f}, norm_only {best['norm_only']:.3f})."
        )
        recipe = part[part["source"] == "recipe_only"]
        leaking = recipe[recipe["ci_low"] > recipe["chance"]]
        if len(leaking):
            lines.append(
                f"{dataset} gives its labels away: recipe_only, which reads no weight, is above "
                "chance. Compare with it, not with chance."
            )
    return lines or ["No classifier has a number."]


def make_report(config: Mapping[str, Any]) -> None:
    """Write the page from the written tables and figures. Equal input gives equal bytes."""
    root = Path(folder(config))
    tables = read_tables(config)
    text = pages.template("actprobe.lora", "report.html.j2").render(
        experiment=config["experiment"],
        headline=headline(tables["summary"]),
        figures=[pages.figure(root / "figures" / f"{name}.svg") for name in FIGURES],
        columns=[*_TEXT.values(), *_SCORES.values(), *_COUNTS.values()],
        rows=_rows(tables["summary"]),
        refused=tables["refused"].to_dict("records"),
        failed=_failed(tables["summary"]),
        tables=list(TABLES.values()),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )
    (root / REPORT).write_text(text, encoding="utf-8")


def _rows(summary: pd.DataFrame) -> list[list[str]]:
    rows = []
    for _, r in summary[summary["test_acc"].notna()].iterrows():
        cells = [str(r[c]) for c in _TEXT]
        for c in _SCORES:
            spread = f" ± {r[c + '_std']:.3f}" if f"{c}_std" in r else ""
            cells.append("" if pd.isna(r[c]) else f"{r[c]:.3f}{spread}")
        rows.append([*cells, *(f"{r[c]:g}" for c in _COUNTS)])
    return rows


def _failed(summary: pd.DataFrame) -> list[dict[str, str]]:
    rows = summary[summary["reason"] != ""]
    return [
        {"id": f"{r['setting']}: {r['source']}, {r['condition']}, {r['method']}",
         "collection": r["dataset"],
         "reason": r["reason"]}
        for _, r in rows.iterrows()
    ]  # fmt: skip
