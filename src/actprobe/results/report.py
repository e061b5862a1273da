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
from actprobe.results.select import TIES
from actprobe.results.tables import method_rank, summarise
from actprobe.results.views import count

PACKAGES = ["actprobe", "numpy", "scipy", "scikit-learn", "torch", "transformers", "matplotlib"]
MANY = 40  # rows of a table that is also there as a file
MANY_SAES = 6  # of one place in the headline


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


def headline(table: pd.DataFrame, skipped: int = 0) -> list[str]:
    """What the table says in a few lines of text: shown when a run ends, and atop the report.

    The best place is the one with the highest mean validation AUC among those that cover the most
    datasets; its test AUC is what is told. Protocols are not mixed: all but the line on SAEs is
    about the one with most baselines. Without the setting `normal` the lines are about one
    condition of another, which the first line names.
    """
    rows = views.numbered(table)
    rows = rows[~views.control(rows)]
    if rows.empty:
        return [f"No probe has a number; {count(skipped, 'target')} skipped."]
    rows, condition = views.at_one_condition(rows)
    every = summarise(rows)
    every = views.labelled(every[every["n_datasets"] == every["n_datasets"].max()])
    counted = every[views.baseline(every)] if views.baseline(every).any() else every
    means = every[every["protocol"] == counted["protocol"].mode()[0]]
    best = means.iloc[int(means["val_auc"].fillna(-1).argmax())]
    lines = [
        f"{best['label']} on {views.place_name(best)} reaches a mean test AUC of "
        f"{best['test_auc']:.3f}{_interval(best)} over {count(best['n_datasets'], 'dataset')}"
        f"{f' ({condition})' if condition else ''}, "
        f"the best of {len(means)} probes by validation AUC."
    ]
    for title, group in _comparisons(means):
        numbers = ", ".join(f"{name} {auc:.3f}" for name, auc in group)
        lines.append(f"{title}: {numbers}.")
    return [*lines, *_sparse(every), *_caveats(table, skipped)]


def _sparse(means: pd.DataFrame) -> list[str]:
    """A line per place with SAE probes: each SAE at its best k by validation, and the baseline."""
    known = means[means["val_auc"].notna()]
    sparse = known[~views.baseline(known)]
    lines = []
    for place, group in sparse.groupby(["protocol", "model", "site", "position"], sort=False):
        best = group.loc[group.groupby("source", sort=False)["val_auc"].idxmax()]
        told = [
            f"{r['source']} {r['test_auc']:.3f} (k = {r['k']})"
            for _, r in best.sort_values("val_auc", ascending=False).head(MANY_SAES).iterrows()
        ]
        same = known[views.baseline(known)]
        same = same[(same[["protocol", "model", "site", "position"]] == list(place)).all(axis=1)]
        if len(same):
            first = same.iloc[int(same["method"].map(method_rank).argmin())]
            told.append(f"{first['method']} on all dimensions {first['test_auc']:.3f}")
        lines.append(f"SAE probes ({place[0]}; {', '.join(place[1:])}): {', '.join(told)}.")
    return lines


def _comparisons(means: pd.DataFrame) -> list[tuple[str, list[tuple[str, float]]]]:
    """The layers of the method with most layers, and the methods of the place with most methods."""
    baselines = means[views.baseline(means)]
    found = []
    by_layer = [g for _, g in baselines.groupby(["protocol", "model", "position", "label"])]
    by_layer.sort(key=lambda g: (-len(g), method_rank(g["label"].iloc[0])))
    if by_layer and len(widest := by_layer[0]) > 1:
        first = widest.iloc[0]
        layers = list(zip(widest["site"], widest["test_auc"], strict=True))
        found.append((f"{first['label']} by layer ({first['model']}, {first['position']})", layers))
    by_place = [g for _, g in baselines.groupby(views.READ)]
    by_place.sort(key=lambda g: (-len(g), -g["val_auc"].mean()))
    if by_place and len(fullest := by_place[0]) > 1:
        order = views.label_order(fullest["label"])
        place = views.place_name(fullest.iloc[0])
        by_method = fullest.set_index("label")
        found.append((f"Methods on {place}", [(m, by_method["test_auc"][m]) for m in order]))
        unseen = by_method["test_auc_unseen"]
        if unseen.notna().all():
            found.append(("The same without leaked test rows", [(m, unseen[m]) for m in order]))
    return found


def _caveats(table: pd.DataFrame, skipped: int) -> list[str]:
    lines = []
    leaks = table.groupby("dataset")["leak_fraction"].max().dropna()
    if leaks.max() > 0:
        lines.append(
            f"On average {leaks.mean():.1%} of a dataset's test texts also stand in its training "
            f"rows; the most in {leaks.idxmax()} ({leaks.max():.1%})."
        )
    known = table["converged"].notna()
    if known.any():
        stopped = int(table["converged"].eq(False).sum())
        lines.append(f"{stopped} of {count(int(known.sum()), 'fit')} did not converge.")
    missing = int(table["test_auc"].isna().sum())
    if missing or skipped:
        lines.append(
            f"{count(missing, 'fit')} gave no number, {count(skipped, 'target')} skipped; the "
            "report says why."
        )
    if "note" in table:
        notes = table.loc[table["note"] != "", "note"].value_counts()
        lines += [f"{count(n, 'row')} {note}." for note, n in notes.items()]
    return lines


def _interval(row: pd.Series) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]"


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
    missing = table[table["test_auc"].isna()]
    text = pages.template("actprobe.results", "report.html.j2").render(
        experiment=config["experiment"],
        headline=headline(table, len(page.skipped)),
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
        missing=_left_out(missing),
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
            "" if pd.isna(r["p_holm"]) else f"{r['p_holm']:.2g}",
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
