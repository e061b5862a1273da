"""The page of the contrastive probes: what was found, against which controls, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from actprobe import pages
from actprobe.contrastive.baselines import METHODS as BASELINES
from actprobe.contrastive.layout import FIGURES, REPORT, TABLE, VECTORS
from actprobe.contrastive.tables import RULE, RUN
from actprobe.contrastive.views import layer_name
from actprobe.texts import Texts

MOST_ROWS = 120


@dataclass(frozen=True)
class Page:
    """What the page shows: the tidy table, what was left out (name, reason), and warnings."""

    table: pd.DataFrame
    skipped: Sequence[Mapping[str, str]]
    warnings: Sequence[str]


def headline(table: pd.DataFrame) -> list[str]:
    """One line per run and validation set: the number at the layer that the training rows
    chose, or that they could not choose one."""
    lines = []
    for r in table[table["chosen"]].itertuples():
        low, high = r.null_permuted_low, r.null_permuted_high
        where = "inside" if low <= r.test_auc <= high else "outside"
        band = f"{where} the null band of {r.method} on permuted labels, {low:.3f} to {high:.3f}"
        if pd.isna(low):
            band = "no null band (its warning says why)"
        lines.append(
            f"{r.train} → {r.dataset}, {r.model}, {r.method}: AUROC {r.test_auc:.3f}"
            f"{_interval(r)} for {r.positive} at {r.site} ({r.position}), "
            f"chosen by held-out training rows; {band}."
        )
    fits = table[table["source"] != ""].drop_duplicates([*RUN, "dataset"])
    decided = set(table.loc[table["chosen"], RUN].itertuples(index=False, name=None))
    lines += [
        f"{r.train} → {r.dataset}, {r.model}, {r.method} ({r.position}): no layer is chosen: the "
        "training rows cannot be held out (folds without both classes, or one group)."
        for r in fits.itertuples()
        if tuple(getattr(r, c) for c in RUN) not in decided
    ]
    return lines or ["No direction has a number."]


def answer_warnings(data: Mapping[str, Texts]) -> list[str]:
    """Datasets of pairs in which an answer tells its class, so that a direction may mean no more
    than the answer's letters."""
    found = []
    for name, t in data.items():
        for answer, (negative, positive) in t.facts.get("answers", {}).items():
            total = negative + positive
            if total and abs(positive / total - 0.5) > 0.1:
                found.append(
                    f"{name}: {answer!r} is the positive answer in {positive} of {total} of its "
                    "rows: the letters do not cancel, and the direction may be theirs."
                )
    return found


def write(root: Path, page: Page, config: Mapping[str, Any]) -> None:
    """Write the page; it holds everything it shows. Equal input gives equal bytes."""
    fits = page.table[page.table["source"] != ""]
    compare = ", ".join(sorted(set(fits["compare_with"]) - {""}))
    shown = fits if len(fits) <= MOST_ROWS else fits[fits["chosen"]]
    text = pages.template("actprobe.contrastive", "report.html.j2").render(
        experiment=config["experiment"],
        headline=headline(page.table),
        rule=RULE,
        warnings=page.warnings,
        figures=[pages.figure(root / "figures" / f"{name}.svg") for name in FIGURES],
        compare=compare
        and f"Cosine: with the mean difference of {compare}; in small print the AUROC without it.",
        columns=_COLUMNS,
        groups=[
            {"title": _title(rows.iloc[0]), "rows": [_row(r) for r in rows.itertuples()]}
            for _, rows in shown.groupby([*RUN, "dataset"], sort=False)
        ],
        baselines=[_baseline(r) for r in page.table[page.table["source"] == ""].itertuples()],
        skipped=page.skipped,
        table=TABLE,
        vectors=VECTORS,
        version=metadata.version("actprobe"),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )
    (root / REPORT).write_text(text, encoding="utf-8")


_COLUMNS = [
    "layer", "held out", "AUROC", "permuted labels", "random directions", "r with 1/length",
    "cosine", "warning",
]  # fmt: skip


def _title(r: Any) -> str:
    at = r.position if r.score_at == r.position else f"{r.position}, scored at {r.score_at}"
    return (
        f"{r.method}: {r.train} ({r.n_train:.0f} rows) → {r.dataset} ({r.n_test:.0f} rows), "
        f"{r.model}, {r.kind}, {at}"
    )


def _row(r: Any) -> dict[str, Any]:
    cells = [
        (layer_name(r.layer), ""),
        (_number(r.val_auc), f"d′ {_number(r.val_d, 2)}"),
        (_number(r.test_auc), f"{_number(r.ci_low)}–{_number(r.ci_high)}"),
        _null(r.p_permuted, r.null_permuted_low, r.null_permuted_high),
        _null(r.p_random, r.null_random_low, r.null_random_high),
        (_number(r.length_corr, 2), ""),
        (_number(r.cos_compare, 2), _number(r.auc_without_compare)),
        (r.warning, ""),
    ]
    return {"chosen": r.chosen, "cells": [{"text": t, "small": s} for t, s in cells]}


def _null(p: float, low: float, high: float) -> tuple[str, str]:
    return ("", "") if pd.isna(low) else (f"p {p:.3f}", f"{low:.3f}–{high:.3f}")


def _interval(r: Any) -> str:
    return "" if pd.isna(r.ci_low) else f" [{r.ci_low:.3f}, {r.ci_high:.3f}]"


def _baseline(r: Any) -> list[str]:
    interval = f"{_number(r.ci_low)}–{_number(r.ci_high)}" if r.ci_low == r.ci_low else ""
    return [r.train, r.dataset, BASELINES[r.method], _number(r.test_auc), interval]


def _number(value: float, digits: int = 3) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
