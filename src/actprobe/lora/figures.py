"""Figures of LoRA probes: representations by layer subset, single layers, the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.lora.catalog import CONTROLS, REPRESENTATIONS
from actprobe.lora.results import read_tables
from actprobe.results.figures import style
from actprobe.results.layout import folder

PANEL = ["setting", "dataset", "method"]
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_NAMED = 60  # classes up to which a confusion matrix names them


def make_figures(config: Mapping[str, Any]) -> None:
    """Draw the figures from the written tables."""
    tables = read_tables(config)
    with matplotlib.rc_context(style.RC):
        for name, draw in (
            ("lora_representations", representations(tables["summary"])),
            ("lora_layers", layers(tables["layers"])),
            ("lora_confusion", confusion(tables["confusion"], tables["summary"])),
        ):
            style.save(draw, Path(folder(config)) / "figures" / name)


def representations(summary: pd.DataFrame) -> Figure:
    """Mean test accuracy of every representation, a marker per layer subset, with the controls."""
    title = "Accuracy by representation and layers"
    rows = summary[summary["test_acc"].notna()]
    read = {tuple(p) for p in rows.loc[rows["source"] != "recipe_only", PANEL].to_numpy()}
    rows = rows[[tuple(p) in read for p in rows[PANEL].to_numpy()]]  # a tree reads the recipe alone
    if rows.empty:
        return style.nothing(title, "No classifier has a number.")
    panels = list(rows.groupby(PANEL, sort=False))
    order = [r for r in REPRESENTATIONS if r in set(rows["source"])]
    subsets = list(dict.fromkeys(rows["condition"]))
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    fig = style.figure(
        title,
        "Mean test accuracy over runs, with its 95 % interval (corrected for rows that runs share).\n"
        "Dashed: chance. Grey line: recipe_only, which reads no weight, with its best method.",
        max(6.4, 4.3 * across),
        (0.27 * len(order) + 1.0) * down,
        subsets,
    )
    for ax, (panel, part) in zip(style.grid(fig, len(panels), across), panels, strict=True):
        _representations(ax, part, order, subsets)
        ax.set_title(", ".join(_differing(panel, [p for p, _ in panels]) or panel[1:]))
    fig.supxlabel("test accuracy", fontsize=9)
    style.legend(fig, subsets)
    return fig


def _representations(ax: Axes, part: pd.DataFrame, order: list[str], subsets: list[str]) -> None:
    for at in range(0, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    if part["recipe_only"].notna().any():
        ax.axvline(part["recipe_only"].max(), color="#BBBBBB", lw=2, zorder=1)
    ax.axvline(part["chance"].mean(), color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=2)
    for i, subset in enumerate(subsets):
        mine = part[part["condition"] == subset]
        shift = 0.24 * (i - (len(subsets) - 1) / 2)
        _points(ax, mine, [order.index(s) + shift for s in mine["source"]], i, subset)
    _lines(ax, [_labelled(r) for r in order])
    ax.grid(axis="x")


def _points(ax: Axes, rows: pd.DataFrame, y: list[float], i: int, label: str) -> None:
    """Accuracies and their intervals as the i-th kind of point."""
    bars = np.nan_to_num([rows["test_acc"] - rows["ci_low"], rows["ci_high"] - rows["test_acc"]])
    ax.errorbar(
        rows["test_acc"], y, xerr=bars, fmt=_MARKERS[i % 6], color=_COLOURS[i % 6], ms=4,
        elinewidth=0.9, label=label, zorder=3,
    )  # fmt: skip


def _lines(ax: Axes, names: list[str], **look: Any) -> None:
    """A line for each name, from the top, and the range of an accuracy."""
    ax.set_yticks(range(len(names)), names, **look)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    ax.tick_params(axis="y", length=0)


def _labelled(representation: str) -> str:
    return f"{representation} (control)" if representation in CONTROLS else representation


def _differing(panel: Any, panels: list) -> list[str]:
    """What tells a panel (probes, collection, …) from the others."""
    return [str(v) for i, v in enumerate(panel) if len({p[i] for p in panels}) > 1]


def layers(table: pd.DataFrame) -> Figure:
    """Mean test accuracy of every module probed for itself."""
    title = "Accuracy of single layers"
    rows = table[table["test_acc"].notna()]
    if rows.empty:
        return style.nothing(title, "No representation was probed layer by layer (`each_layer`).")
    rows = rows.assign(kind=rows["source"].map(_labelled) + ", " + rows["method"])
    kinds = list(dict.fromkeys(rows["kind"]))
    panels = list(rows.groupby(["setting", "dataset"], sort=False))
    most = rows.groupby(["setting", "dataset"])["site"].nunique().max()
    fig = style.figure(
        title,
        "Mean test accuracy over runs of a classifier that reads one module alone. The 95 % intervals\n"
        "hold for all modules together (Bonferroni). Dashed: chance.",
        7.6,
        (max(0.15, 0.09 * len(kinds)) * most + 0.9) * len(panels),
        kinds,
    )
    axes = fig.subplots(len(panels), 1, squeeze=False, sharex=True)
    for ax, (panel, part) in zip(axes.flat, panels, strict=True):
        modules = sorted(set(part["site"]))
        ax.axvline(part["chance"].mean(), color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=1)
        for i, kind in enumerate(kinds):
            mine = part[part["kind"] == kind]
            shift = 0.3 * (i / max(len(kinds) - 1, 1) - 0.5)
            _points(ax, mine, [modules.index(s) + shift for s in mine["site"]], i, kind)
        _lines(ax, modules, fontsize=5.5 if most > 40 else 7)
        ax.grid()
        ax.set_title(", ".join(_differing(panel, [p for p, _ in panels])))
    axes[-1, 0].set_xlabel("test accuracy")
    style.legend(fig, kinds)
    return fig


def confusion(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Confusion matrix of the cell with the best mean validation accuracy, per collection."""
    title = "Confusion matrix"
    rows = summary[summary["test_acc"].notna() & ~summary["source"].isin(CONTROLS)]
    if rows.empty:
        return style.nothing(title, "No classifier has a number.")
    best = [
        part.loc[part["val_acc"].idxmax()]
        for _, part in rows.groupby(["setting", "dataset"], sort=False)
    ]
    fig = style.figure(
        title,
        "The representation, layers and method with the best mean validation accuracy. Shares of the\n"
        "true class in %, test rows of all runs together.",
        max(4.6, 4.4 * min(len(best), 2)),
        4.2 * math.ceil(len(best) / 2),
    )
    across = min(len(best), 2)
    axes = fig.subplots(math.ceil(len(best) / across), across, squeeze=False)
    for ax, cell in zip(axes.flat, best, strict=False):
        keys = ["setting", "dataset", "source", "condition", "method"]
        mine = table[(table[keys] == cell[keys]).all(axis=1)]
        counts = _square(mine)
        _confusion(ax, counts)
        panel = _differing(tuple(cell[keys[:2]]), [tuple(c[keys[:2]]) for c in best])
        ax.set_title(", ".join([*panel, *cell[keys[2:]]]))
    for ax in list(axes.flat)[len(best) :]:
        ax.set_visible(False)
    return fig


def _square(cells: pd.DataFrame) -> pd.DataFrame:
    """Counts of pairs of classes as a matrix of the classes that occur, 0 where a pair does not."""
    names = sorted({*cells["true"], *cells["predicted"]}, key=str)
    counts = cells.pivot(index="true", columns="predicted", values="n")
    return counts.reindex(index=names, columns=names).fillna(0)


def _confusion(ax: Axes, counts: pd.DataFrame) -> None:
    shares = counts.to_numpy(float)
    shares = 100 * shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(shares) <= 20:
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                colour = "white" if share > 60 else "#333333"
                ax.text(j, i, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    shown = range(len(counts) if len(counts) <= _NAMED else 0)
    ax.set_xticks(shown, counts.columns[: len(shown)], rotation=45, ha="right")
    ax.set_yticks(shown, counts.index[: len(shown)])
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
