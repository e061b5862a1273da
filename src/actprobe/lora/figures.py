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
from actprobe.results.figures import style, words
from actprobe.results.layout import folder

PANEL = ["setting", "dataset", "protocol", "method"]
_WHERE = PANEL[:-1]
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_MATRICES = 8
_SIDE = 3.0  # inches of a confusion matrix
_NAME, _LINE = 7.0, 8.5  # points of a name, and of the line in which it stands


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
    panels, more = style.first(rows.groupby(PANEL, sort=False), style.PANELS, "methods")
    order = [r for r in REPRESENTATIONS if r in set(rows["source"])]
    subsets, hidden = style.first(dict.fromkeys(rows["condition"]), len(_MARKERS) ** 2, "subsets")
    across = min(len(panels), 3)
    width = max(6.4, 4.3 * across)
    fig = style.figure(
        title,
        "Mean test accuracy over runs, with its 95 % interval (corrected for rows that runs share)."
        f"{more}{hidden}\n"
        "Dashed: chance. Grey line: recipe_only, which reads no weight, with its best method.",
        width,
        (min(max(0.27, 0.06 * len(subsets)), 0.8) * len(order) + 1.2)
        * math.ceil(len(panels) / across),
        subsets,
    )
    for ax, (panel, part) in zip(style.grid(fig, len(panels), across), panels, strict=True):
        _representations(ax, part, order, subsets)
        style.head(ax, panel, (width - 1.6) / across - 0.2)
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
        shift = min(0.24, 0.8 / len(subsets)) * (i - (len(subsets) - 1) / 2)
        _points(ax, mine, [order.index(s) + shift for s in mine["source"]], i, subset)
    _lines(ax, [_labelled(r) for r in order], 2.4, 9)
    ax.grid(axis="x")


def _points(ax: Axes, rows: pd.DataFrame, y: list[float], i: int, label: str) -> None:
    """Accuracies and their intervals as the i-th kind of point."""
    bars = np.nan_to_num([rows["test_acc"] - rows["ci_low"], rows["ci_high"] - rows["test_acc"]])
    turn, i = divmod(i, len(_MARKERS))
    ax.errorbar(
        rows["test_acc"], y, xerr=bars, fmt=_MARKERS[(i + turn) % len(_MARKERS)], color=_COLOURS[i],
        ms=4, elinewidth=0.9, label=label, zorder=3,
    )  # fmt: skip


def _lines(ax: Axes, names: list[str], inches: float, size: float) -> None:
    """A line for each name, from the top, and the range of an accuracy."""
    style.name_rows(ax, range(len(names)), names, inches, size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)


def _labelled(representation: str) -> str:
    return f"{representation} (control)" if representation in CONTROLS else representation


def layers(table: pd.DataFrame) -> Figure:
    """Mean test accuracy of every module probed for itself.

    Of more modules than a figure holds, those with the highest mean accuracy are shown.
    """
    title = "Accuracy of single layers"
    rows = table[table["test_acc"].notna()]
    if rows.empty:
        return style.nothing(title, "No representation was probed layer by layer (`each_layer`).")
    rows = rows.assign(kind=rows["source"].map(_labelled) + ", " + rows["method"])
    kinds, hidden = style.first(dict.fromkeys(rows["kind"]), len(_MARKERS) ** 2, "kinds")
    groups, more = style.first(rows.groupby(_WHERE, sort=False), 6, "collections")
    panels = [(panel, part, _modules(part)) for panel, part in groups]
    if any(part["site"].nunique() > len(modules) for _, part, modules in panels):
        more += f" The {style.ROWS} modules with the highest mean accuracy."
    lines = [len(modules) for _, _, modules in panels]
    line = min(max(0.15, 0.09 * len(kinds)), 0.5)
    fig = style.figure(
        title,
        "Mean test accuracy over runs of a classifier that reads one module alone. The 95 % intervals "
        f"hold for all modules together (Bonferroni). Dashed: chance.{more}{hidden}",
        7.6,
        sum(line * n + 0.9 for n in lines),
        kinds,
    )
    axes = fig.subplots(
        len(panels), 1, squeeze=False, sharex=True, height_ratios=[line * n + 0.6 for n in lines]
    )
    for ax, (panel, part, modules) in zip(axes.flat, panels, strict=True):
        ax.axvline(part["chance"].mean(), color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=1)
        for i, kind in enumerate(kinds):
            mine = part[(part["kind"] == kind) & part["site"].isin(modules)]
            shift = 0.3 * (i / max(len(kinds) - 1, 1) - 0.5)
            _points(ax, mine, [modules.index(s) + shift for s in mine["site"]], i, kind)
        _lines(ax, modules, 3.2, 5.5 if len(modules) > 40 else 7)
        ax.grid()
        style.head(ax, panel, 4)
    axes[-1, 0].set_xlabel("test accuracy")
    style.legend(fig, kinds)
    return fig


def _modules(part: pd.DataFrame) -> list[str]:
    """The modules to show, by name."""
    means = part.groupby("site")["test_acc"].mean().sort_values(ascending=False, kind="stable")
    return sorted(means.index[: style.ROWS])


def confusion(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Confusion matrix of the cell with the best mean validation accuracy, per collection."""
    title = "Confusion matrix"
    rows = summary[summary["test_acc"].notna() & ~summary["source"].isin(CONTROLS)]
    if rows.empty:
        return style.nothing(title, "No classifier has a number.")
    groups, more = style.first(rows.groupby(_WHERE, sort=False), _MATRICES, "collections")
    best = [part.loc[part["val_acc"].fillna(-1).idxmax()] for _, part in groups]
    across = min(len(best), 2)
    fig = style.figure(
        title,
        "The representation, layers and method with the best mean validation accuracy. Shares of the "
        f"true class in %, test rows of all runs together.{more}",
        max(5.4, 5.0 * across),
        5.0 * math.ceil(len(best) / across),
    )
    axes = fig.subplots(math.ceil(len(best) / across), across, squeeze=False)
    for ax, cell in zip(axes.flat, best, strict=False):
        keys = [*_WHERE, "source", "condition", "method"]
        mine = table[(table[keys] == cell[keys]).all(axis=1)]
        _confusion(ax, _square(mine))
        style.head(ax, cell[keys].tolist(), _SIDE)
    for ax in list(axes.flat)[len(best) :]:
        ax.set_visible(False)
    return fig


def _square(cells: pd.DataFrame) -> pd.DataFrame:
    """Counts of pairs of classes as a matrix of the classes that occur, 0 where a pair does not."""
    names = sorted({*cells["true"], *cells["predicted"]}, key=str)
    counts = cells.pivot(index="true", columns="predicted", values="n")
    return counts.reindex(index=names, columns=names).fillna(0)


def _confusion(ax: Axes, counts: pd.DataFrame) -> None:
    if counts.empty:
        ax.text(0.5, 0.5, "no test rows", ha="center")
        ax.set_axis_off()
        return
    shares = counts.to_numpy(float)
    shares = 100 * shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    n = len(shares)
    size = min(8.0, 26 * _SIDE / n)  # a number of three digits fits into a cell
    if size > 4:
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                colour = "white" if share > 60 else "#333333"
                ax.text(j, i, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=size)
    shown = words.fitted(map(str, counts.index), 1.4, _NAME)
    every = math.ceil(n * _LINE * math.sqrt(2) / (72 * _SIDE))  # names below are at an angle
    at = list(range(0, n, every))
    names = [shown[str(counts.index[i])] for i in at]
    ax.set_xticks(at, names, rotation=45, ha="right", fontsize=_NAME)
    ax.set_yticks(at, names, fontsize=_NAME)
    ax.set_xlabel("predicted" if every == 1 else f"predicted (every {every}th of {n} is named)")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
