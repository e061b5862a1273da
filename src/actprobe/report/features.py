"""What the report says of probes of features: lines atop, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import Table, number
from actprobe.lora import CONTROLS
from actprobe.report import datasets
from actprobe.results import scores
from actprobe.results.features import representation
from actprobe.results.make import Written
from actprobe.results.views import count

_SCORES = {
    "chance": "chance",
    "recipe_only": "recipe_only",
    "norm_only": "norm_only",
    "test_macro_f1": "macro F1",
    "test_auc": "AUC",
    "train_score": "on train rows",
}
_COUNTS = {
    "train LoRAs": "n_train",
    "test LoRAs": "n_test",
    "columns read": "n_columns",
    "constant": "n_constant",
    "repeated": "n_repeated",
}
_MOST_NAMED = 5


def headline(found: Written) -> list[str]:
    """A few lines: per collection what choosing by validation reaches, controls, leaks, outliers."""
    lines = [_choice(c) for c in found["choices"].to_dict("records")]
    by = ["protocol", "setting", "dataset", "label"]
    for at, part in found["representations"].groupby(by, sort=False):
        where = _where(dict(zip(by, at, strict=True)))
        lines += [f"{where}: {told}" for told in (_leak(part), _far(part)) if told]
    return lines or ["No probe of features has a number."]


def _choice(c: Mapping[str, Any]) -> str:
    among, label = count(int(c["among"]), "probe"), scores.known(c["metric"]).label
    controls = ", ".join(f"{k} {_number(c[k])}" for k in ("chance", *CONTROLS))
    return (
        f"{_where(c)}: choosing among {among} by the validation rows of each run reaches a mean "
        f"{label} of {_number(c['test_score'])} ({_interval(c)}{controls}). {int(c['of_runs'])} of "
        f"{int(c['n_runs'])} runs chose {c['most']}."
    )


def _where(at: Mapping[str, Any]) -> str:
    label = f", {at['label']}" if at["label"] else ""
    setting = f", {at['setting']}" if at["setting"] != "normal" else ""
    return f"{at['dataset']}{label} ({at['protocol']}{setting})"


def _interval(c: Mapping[str, Any]) -> str:
    low, high = c["ci_low"], c["ci_high"]
    return "" if pd.isna(low) else f"95 % interval {low:.3f} to {high:.3f}; "


def _number(value: float) -> str:
    return number(value) or "not known"


def _leak(part: pd.DataFrame) -> str:
    """What the recipe alone tells of the labels of a collection."""
    recipe = part[representation(part) == "recipe_only"]
    above = recipe[recipe["ci_low"] > recipe["chance"]]
    if above.empty:
        return ""
    best = above.loc[above["test_score"].idxmax()]
    return (
        f"the collection gives its labels away: recipe_only, which reads no weight, reaches "
        f"{best['test_score']:.3f} with {best['method']}. Compare with it, not with chance."
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


def tables(found: Written) -> dict[str, Table | None]:
    """`summary`, the probes with a number; `metrics`, all metrics of these; `refused`, the files that
    were left out."""
    summary = found["representations"]
    known = summary[summary["test_score"].notna()]
    known = known.assign(representation=representation(known))
    names: dict[str, pages.Cell] = {"protocol": "protocol", "collection": "dataset"}
    names |= {"class": "label"} if (known["label"] != "").any() else {}
    names |= {c: c for c in ("representation", "columns", "method")}
    metric = scores.any_of(scores.known(m).label for m in known["metric"].unique())
    numbers: dict[str, pages.Cell] = {metric: _mean("test_score")}
    numbers |= {words: _mean(c) for c, words in _SCORES.items()}
    numbers |= {words: pages.of_number(c, "g") for words, c in _COUNTS.items()}
    refused = found["refused"].drop_duplicates(["collection", "id", "reason"])
    columns: dict[str, pages.Cell] = {"collection": "collection", "what": "id", "reason": "reason"}
    return {
        "summary": pages.table(known, names | numbers, len(names)),
        "metrics": datasets.of_metrics(known, names, len(names), "LoRA weights"),
        "refused": pages.table(refused, columns, 3),
    }


def _mean(column: str) -> pages.Cell:
    """A mean over runs with its standard deviation."""

    def cell(r: Mapping[str, Any]) -> str:
        spread = f" ± {r[column + '_std']:.3f}" if f"{column}_std" in r else ""
        return "" if pd.isna(r[column]) else f"{r[column]:.3f}{spread}"

    return cell
