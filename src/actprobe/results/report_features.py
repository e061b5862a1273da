"""What the report says of probes of features: lines atop, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from actprobe.lora import CONTROLS
from actprobe.pages import Table
from actprobe.probes.metrics import all_metrics
from actprobe.results import scores
from actprobe.results.features import representation
from actprobe.results.views import count

_NAMES = {
    "protocol": "protocol",
    "dataset": "collection",
    "label": "class",
    "representation": "representation",
    "columns": "columns",
    "method": "method",
}
_SCORES = {
    "test_score": "",  # named by the metric
    "chance": "chance",
    "recipe_only": "recipe_only",
    "norm_only": "norm_only",
    "test_macro_f1": "macro F1",
    "test_auc": "AUC",
    "train_score": "on train rows",
}
_COUNTS = {
    "n_train": "train LoRAs",
    "n_test": "test LoRAs",
    "n_columns": "columns",
    "n_constant": "constant",
    "n_repeated": "repeated",
}
_MOST_NAMED = 5
_MOST_ROWS = 400


def headline(found: Mapping[str, pd.DataFrame]) -> list[str]:
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
    return "not known" if pd.isna(value) else f"{value:.3f}"


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


def tables(found: Mapping[str, pd.DataFrame]) -> dict[str, Table | None]:
    """`summary`, the probes with a number; `metrics`, all metrics of these; `refused`, the files that
    were left out."""
    summary = found["representations"]
    known = summary[summary["test_score"].notna()]
    known = known.assign(representation=representation(known))
    return {
        "summary": _probes(known),
        "metrics": _metrics(known),
        "refused": _refused(found["refused"]),
    }


def _names(known: pd.DataFrame) -> list[str]:
    return [c for c in _NAMES if c != "label" or (known["label"] != "").any()]


def _metrics(known: pd.DataFrame) -> Table | None:
    shown = [
        m for m in all_metrics().values() if m.column in known and known[m.column].notna().any()
    ]
    names = _names(known)
    rows = [
        [
            *(str(r[c]) for c in names),
            *("" if pd.isna(r[m.column]) else f"{r[m.column]:.3f}" for m in shown),
        ]
        for _, r in known.head(_MOST_ROWS).iterrows()
    ]
    columns = [*(_NAMES[c] for c in names), *(m.name for m in shown)]
    note = "; ".join(f"{m.name}: {m.label}" for m in shown) + "."
    if not rows:
        return None
    return Table(columns, rows, labels=len(names), title="LoRA weights", note=note, of=len(known))


def _probes(known: pd.DataFrame) -> Table | None:
    names = _names(known)
    rows = [
        [*(str(r[c]) for c in names), *_numbers(r)] for _, r in known.head(_MOST_ROWS).iterrows()
    ]
    metric = scores.any_of(scores.known(m).label for m in known["metric"].unique()) if rows else ""
    columns = [*(_NAMES[c] for c in names), metric, *list(_SCORES.values())[1:], *_COUNTS.values()]
    return Table(columns, rows, labels=len(names), of=len(known)) if rows else None


def _numbers(r: pd.Series) -> Iterator[str]:
    for c in _SCORES:
        spread = f" ± {r[c + '_std']:.3f}" if f"{c}_std" in r else ""
        yield "" if pd.isna(r[c]) else f"{r[c]:.3f}{spread}"
    for c in _COUNTS:
        yield "" if pd.isna(r[c]) else f"{r[c]:g}"


def _refused(refused: pd.DataFrame) -> Table | None:
    """The files that were refused; what occurs twice once."""
    rows = [(r["collection"], r["id"], r["reason"]) for r in refused.to_dict("records")]
    rows = list(dict.fromkeys(rows))
    columns = ["collection", "what", "reason"]
    return Table(columns, rows[:_MOST_ROWS], labels=3, of=len(rows)) if rows else None
