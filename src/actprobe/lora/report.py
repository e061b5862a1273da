"""The page of the LoRA results: what the classifiers reach, the controls, what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from actprobe import pages
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
_MOST_NAMED = 5
_COUNTS = {
    "n_train": "train LoRAs",
    "n_test": "test LoRAs",
    "n_columns": "columns",
    "n_constant": "constant",
    "n_repeated": "repeated",
}


def headline(summary: pd.DataFrame, choices: pd.DataFrame) -> list[str]:
    """A few lines: per collection what choosing by validation reaches, controls, leaks, outliers."""
    lines = [
        f"{c['setting']}, {c['dataset']}: choosing among {c['among']} classifiers by the validation "
        f"rows of each run reaches a mean test accuracy of {c['test_acc']:.3f} (95 % interval "
        f"{c['ci_low']:.3f} to {c['ci_high']:.3f}; chance {c['chance']:.3f}, recipe_only "
        f"{c['recipe_only']:.3f}, norm_only {c['norm_only']:.3f}). {c['of_runs']} of {c['n_runs']} "
        f"runs chose {c['most']}."
        for c in choices.to_dict("records")
    ]
    for (setting, dataset), part in summary.groupby(["setting", "dataset"], sort=False):
        lines += [f"{setting}, {dataset}: {told}" for told in (_leak(part), _far(part)) if told]
    return lines or ["No classifier has a number."]


def _leak(part: pd.DataFrame) -> str:
    """What the recipe alone tells of the labels of a collection."""
    recipe = part[part["source"] == "recipe_only"]
    above = recipe[recipe["ci_low"] > recipe["chance"]]
    if above.empty:
        return ""
    best = above.loc[above["test_acc"].idxmax()]
    return (
        f"the collection gives its labels away: recipe_only, which reads no weight, reaches "
        f"{best['test_acc']:.3f} with {best['method']}. Compare with it, not with chance."
    )


def _far(part: pd.DataFrame) -> str:
    """The LoRAs of a collection that are unlike all others."""
    far = list(dict.fromkeys(i for o in part["outliers"] if o for i in o.split(", ")))
    if not far:
        return ""
    more = f" and {len(far) - _MOST_NAMED} more" if len(far) > _MOST_NAMED else ""
    return (
        f"LoRAs that lie far outside of all others in some representation: "
        f"{', '.join(far[:_MOST_NAMED])}{more}. Their values were cut before they were scaled."
    )


def make_report(config: Mapping[str, Any]) -> None:
    """Write the page from the written tables and figures. Equal input gives equal bytes."""
    root = Path(folder(config))
    tables = read_tables(config)
    text = pages.template("actprobe.lora", "report.html.j2").render(
        experiment=config["experiment"],
        headline=headline(tables["summary"], tables["choices"]),
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
