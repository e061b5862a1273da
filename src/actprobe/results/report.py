"""The one-page report: numbers, figures, datasets, what was left out, and how to do it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from actprobe import keys, pages
from actprobe.results import saes, views
from actprobe.results.headlines import headline
from actprobe.results.select import TIES

PACKAGES = ["actprobe", "numpy", "scipy", "scikit-learn", "torch", "transformers", "matplotlib"]
MANY = 40  # rows of a table that is also there as a file


@dataclass(frozen=True)
class Page:
    """What the report shows: the tables, and the names of the figures drawn from them."""

    table: pd.DataFrame
    skipped: pd.DataFrame
    datasets: pd.DataFrame
    comparisons: pd.DataFrame
    quivers: pd.DataFrame
    saes: pd.DataFrame
    figures: Sequence[str]

    @property
    def targets_skipped(self) -> int:
        """Targets that could not be made; the other skipped rows are fits of targets that were."""
        return int((self.skipped["fits"] == "").sum())


def provenance(table: pd.DataFrame, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the results rest on, as (name, value): config, cached files, library versions."""
    used = sorted(set(table["key"]) - {""})
    versions = ", ".join(f"{p} {_version(p)}" for p in PACKAGES)
    return [
        ("config (SHA-256)", keys.spec_key(config)),
        ("cached files", f"{len(used)}, keys together {keys.spec_key({'keys': used})}"),
        ("python", platform.python_version()),
        ("packages", versions),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def write_report(path: str | Path, page: Page, config: Mapping[str, Any]) -> None:
    """Write the report to `path`; the figures are read from the folder `figures` beside it.

    The page holds everything it shows and opens without a network; its links lead to the tables
    beside it. `config` is the resolved config. Equal input gives equal bytes.
    """
    path = Path(path)
    table = page.table
    columns, rows, place = _dataset_rows(table, page.datasets)
    text = pages.template("actprobe.results", "report.html.j2").render(
        experiment=config["experiment"],
        headline=headline(table, page.targets_skipped),
        figures=[pages.figure(path.parent / "figures" / f"{name}.svg") for name in page.figures],
        confidence=f"{config['results']['confidence']:.0%}",
        columns=columns,
        rows=rows,
        place=place,
        comparisons=_comparison_rows(page.comparisons),
        n_comparisons=len(page.comparisons),
        quivers=_quiver_rows(page.quivers),
        saes=saes.report_rows(page.saes),
        tie_rule=TIES["methods"],
        skipped=_left_out(page.skipped),
        provenance=provenance(table, config),
        version=_version("actprobe"),
        imported=config.get("imported"),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )
    path.write_text(text, encoding="utf-8")


def _comparison_rows(comparisons: pd.DataFrame) -> list[list[str]]:
    """Cells of the comparisons worth a look: baselines and choices, not every single k."""
    rows = comparisons[~comparisons["probe"].str.contains(", k = ")].head(MANY)
    return [
        [
            r["setting"],
            r["site"],
            r["probe"],
            r["reference"],
            f"{r['n_pairs']:g}",
            f"{r['delta']:+.4f}",
            "" if pd.isna(r["ci_low"]) else f"{r['ci_low']:+.4f} … {r['ci_high']:+.4f}",
            f"{r['wins']:g} / {r['losses']:g} / {r['ties']:g}",
            r["p_note"] if pd.isna(r["p_holm"]) else f"{r['p_holm']:.2g} of {r['family']:g}",
            "" if pd.isna(r["delta_unseen"]) else f"{r['delta_unseen']:+.4f}",
        ]
        for _, r in rows.iterrows()
    ]


def _quiver_rows(quivers: pd.DataFrame) -> list[list[str]]:
    return [
        [
            r["setting"],
            r["site"],
            r["candidates"],
            f"{r['n_choices']:g}",
            f"{r['test_auc']:.4f}",
            f"{r['tie_low']:.4f} … {r['tie_high']:.4f}",
            f"{r['n_tied']:g}",
            f"{r['n_sae']:g}",
        ]
        for _, r in quivers.head(MANY).iterrows()
    ]


def _left_out(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Rows without a number, those of one dataset and reason joined."""
    joined = []
    for (dataset, reason), group in rows.groupby(["dataset", "reason"], sort=False):
        where = sorted(set(group["setting"] + ", " + group["source"] + ", " + group["method"]))
        shown = where[0] if len(where) == 1 else f"{where[0]} and {len(where) - 1} more"
        joined.append({"dataset": str(dataset), "where": shown, "reason": str(reason)})
    return joined


def _dataset_rows(
    table: pd.DataFrame, datasets: pd.DataFrame
) -> tuple[list[str], list[list[dict[str, str]]], str]:
    """Headings and cells of the table per dataset, and the place its numbers come from."""
    shown = views.featured(table)
    if shown.empty:
        return [], [], ""
    methods = views.label_order(shown["label"])
    classes = dict(zip(datasets["dataset"], datasets["classes"], strict=True))
    stopped = table.groupby("dataset")["converged"].agg(_unconverged)
    rows = []
    for dataset, group in shown.groupby("dataset", sort=False):
        by_method = group.set_index("label")
        best = by_method["val_auc"].fillna(-1).idxmax()
        first = group.iloc[0]
        cells = [
            _cell(dataset, css="text"),
            _cell(classes.get(dataset, ""), css="wrap"),
            _cell(f"{first['n_train']} / {first['n_test']}".replace("<NA> / <NA>", "")),
            _cell("" if pd.isna(first["leak_fraction"]) else f"{first['leak_fraction']:.1%}"),
            _cell(stopped[dataset]),
        ]
        for m in methods:
            if m in by_method.index:
                r = by_method.loc[m]
                bounds = f"{r['ci_low']:.3f}–{r['ci_high']:.3f}".replace("nan–nan", "")
                cells.append(_cell(f"{r['test_auc']:.3f}", bounds, "best" * (m == best)))
            else:
                cells.append(_cell(""))
        rows.append(cells)
    headings = ["dataset", "classes", "train / test", "leaked", "unconverged", *methods]
    return headings, rows, views.place_name(shown.iloc[0])


def _unconverged(converged: pd.Series) -> str:
    """How many of these fits stopped early; "" where it is not known of any."""
    return "" if converged.isna().all() else str(int(converged.eq(False).sum()))


def _cell(value: object, small: str = "", css: str = "") -> dict[str, str]:
    return {"text": str(value), "small": small, "css": css}
