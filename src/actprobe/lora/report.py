"""The page of the LoRA results: what the classifiers reach, the controls, what was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from actprobe import pages
from actprobe.lora.layout import FIGURES, REPORT, TABLES
from actprobe.lora.results import read_tables
from actprobe.pages import Table
from actprobe.results.layout import folder

_TEXT = {
    "setting": "probes",
    "protocol": "protocol",
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
_MOST_ROWS = 400
_COUNTS = {
    "n_train": "train LoRAs",
    "n_test": "test LoRAs",
    "n_columns": "columns",
    "n_constant": "constant",
    "n_repeated": "repeated",
}


def headline(summary: pd.DataFrame, choices: pd.DataFrame) -> list[str]:
    """A few lines: per collection what choosing by validation reaches, controls, leaks, outliers."""
    protocols = dict(zip(summary["setting"], summary["protocol"], strict=True))
    lines = [
        f"{c['setting']} ({protocols.get(c['setting'], '')}), {c['dataset']}: choosing among "
        f"{c['among']} classifiers by the validation rows of each run reaches a mean test accuracy of "
        f"{_number(c['test_acc'])} ({_interval(c)}chance {_number(c['chance'])}, recipe_only "
        f"{_number(c['recipe_only'])}, norm_only {_number(c['norm_only'])}). {c['of_runs']} of "
        f"{c['n_runs']} runs chose {c['most']}."
        for c in choices.to_dict("records")
    ]
    for (setting, dataset), part in summary.groupby(["setting", "dataset"], sort=False):
        where = f"{setting} ({protocols[setting]}), {dataset}"
        lines += [f"{where}: {told}" for told in (_leak(part), _far(part)) if told]
    return lines or ["No classifier has a number."]


def told(config: Mapping[str, Any]) -> list[str]:
    """The headline lines of results whose tables are written."""
    tables = read_tables(config)
    return headline(tables["summary"], tables["choices"])


def _interval(c: Mapping[str, Any]) -> str:
    low, high = c["ci_low"], c["ci_high"]
    return "" if pd.isna(low) else f"95 % interval {low:.3f} to {high:.3f}; "


def _number(value: float) -> str:
    return "not known" if pd.isna(value) else f"{value:.3f}"


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


def make_report(config: Mapping[str, Any], contexts: Sequence[str] = ()) -> None:
    """Write the page from the written tables and figures. Equal input gives equal bytes.

    contexts: pages of top contexts to link to.
    """
    root = Path(folder(config))
    tables = read_tables(config)
    text = pages.template("actprobe.lora", "report.html.j2").render(
        experiment=config["experiment"],
        links=pages.links(config, REPORT, contexts),
        headline=headline(tables["summary"], tables["choices"]),
        figures=[pages.figure(root / "figures" / f"{name}.svg") for name in FIGURES],
        classifiers=_classifiers(tables["summary"]),
        left_out=_left_out(tables["refused"], tables["summary"], tables["layers"]),
        tables=list(TABLES.values()),
        provenance=tables["provenance"].to_dict("records"),
        provenance_file=TABLES["provenance"],
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )
    (root / REPORT).write_text(text, encoding="utf-8")


def _classifiers(summary: pd.DataFrame) -> Table | None:
    rows = []
    known = summary[summary["test_acc"].notna()]
    for _, r in known.head(_MOST_ROWS).iterrows():
        cells = [str(r[c]) for c in _TEXT]
        for c in _SCORES:
            spread = f" ± {r[c + '_std']:.3f}" if f"{c}_std" in r else ""
            cells.append("" if pd.isna(r[c]) else f"{r[c]:.3f}{spread}")
        rows.append([*cells, *("" if pd.isna(r[c]) else f"{r[c]:g}" for c in _COUNTS)])
    columns = [*_TEXT.values(), *_SCORES.values(), *_COUNTS.values()]
    return Table(columns, rows, labels=len(_TEXT), of=len(known)) if rows else None


def _left_out(refused: pd.DataFrame, *summaries: pd.DataFrame) -> Table | None:
    """The files that were refused, and the classifiers without a number; what occurs twice once."""
    rows = [(r["collection"], r["id"], r["reason"]) for r in refused.to_dict("records")]
    for summary in summaries:
        for _, r in summary[summary["reason"] != ""].iterrows():
            cell = ", ".join(str(r[c]) for c in ("source", "condition", "site", "method") if r[c])
            rows.append((r["dataset"], f"{r['setting']} ({r['protocol']}): {cell}", r["reason"]))
    rows = list(dict.fromkeys(rows))
    columns = ["collection", "what", "reason"]
    return Table(columns, rows[:_MOST_ROWS], labels=3, of=len(rows)) if rows else None
