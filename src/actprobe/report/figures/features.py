"""Figures of probes of features: representations by subset of columns, and single modules."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.lora import CONTROLS, REPRESENTATIONS
from actprobe.report.figures import style
from actprobe.results import scores
from actprobe.results.features import WHERE, representation

PANEL = [*WHERE, "method"]
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


def representations(summary: pd.DataFrame) -> Figure:
    """Mean test score of every representation, a marker per subset of columns, with the controls."""
    title = "Score by representation and columns"
    rows = _told(summary)
    read = {tuple(p) for p in rows.loc[rows["representation"] != "recipe_only", PANEL].to_numpy()}
    rows = rows[[tuple(p) in read for p in rows[PANEL].to_numpy()]]  # a tree reads the recipe alone
    if rows.empty:
        return style.nothing(title, "No classifier has a number.")
    panels, more = style.first(rows.groupby(PANEL, sort=False), style.PANELS, "methods")
    order = [r for r in REPRESENTATIONS if r in set(rows["representation"])]
    subsets, hidden = style.first(dict.fromkeys(rows["columns"]), len(_MARKERS) ** 2, "subsets")
    across = min(len(panels), 3)
    width = max(6.4, 4.3 * across)
    fig = style.figure(
        title,
        "Mean test score over runs, with its 95 % interval (corrected for rows that runs share)."
        f"{more}{hidden}\n"
        "Dashed: chance. Grey line: recipe_only, which reads no weight, with its best method.",
        width,
        (min(max(0.27, 0.06 * len(subsets)), 0.8) * len(order) + 1.2)
        * math.ceil(len(panels) / across),
        subsets,
    )
    for ax, (panel, part) in zip(style.grid(fig, len(panels), across), panels, strict=True):
        _representations(ax, part, order, subsets)
        style.head(ax, titled(panel), (width - 1.6) / across - 0.2)
    fig.supxlabel(_axis(rows), fontsize=9)
    style.legend(fig, subsets)
    return fig


def _representations(ax: Axes, part: pd.DataFrame, order: list[str], subsets: list[str]) -> None:
    for at in range(0, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    if part["recipe_only"].notna().any():
        ax.axvline(part["recipe_only"].max(), color="#BBBBBB", lw=2, zorder=1)
    ax.axvline(part["chance"].mean(), color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=2)
    for i, subset in enumerate(subsets):
        mine = part[part["columns"] == subset]
        shift = min(0.24, 0.8 / len(subsets)) * (i - (len(subsets) - 1) / 2)
        _points(ax, mine, [order.index(s) + shift for s in mine["representation"]], i, subset)
    _lines(ax, [_labelled(r) for r in order], 2.4, 9)
    ax.grid(axis="x")


def _points(ax: Axes, rows: pd.DataFrame, y: list[float], i: int, label: str) -> None:
    """Scores and their intervals as the i-th kind of point."""
    bars = np.nan_to_num(
        [rows["test_score"] - rows["ci_low"], rows["ci_high"] - rows["test_score"]]
    )
    turn, i = divmod(i, len(_MARKERS))
    ax.errorbar(
        rows["test_score"], y, xerr=bars, fmt=_MARKERS[(i + turn) % len(_MARKERS)], color=_COLOURS[i],
        ms=4, elinewidth=0.9, label=label, zorder=3,
    )  # fmt: skip


def _lines(ax: Axes, names: list[str], inches: float, size: float) -> None:
    """A line for each name, from the top, and the range of a score."""
    style.name_rows(ax, range(len(names)), names, inches, size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)


def _labelled(representation: str) -> str:
    return f"{representation} (control)" if representation in CONTROLS else representation


def modules(table: pd.DataFrame) -> Figure:
    """Mean test score of every module probed by itself.

    Of more modules than a figure holds, those with the highest mean score are shown.
    """
    title = "Score of single modules"
    rows = _told(table)
    if rows.empty:
        return style.nothing(title, "No module was probed by itself (`each_column_group`).")
    rows = rows.assign(kind=rows["representation"].map(_labelled) + ", " + rows["method"])
    kinds, hidden = style.first(dict.fromkeys(rows["kind"]), len(_MARKERS) ** 2, "kinds")
    groups, more = style.first(rows.groupby(WHERE, sort=False), 6, "collections")
    panels = [(panel, part, _modules(part)) for panel, part in groups]
    if any(part["site"].nunique() > len(modules) for _, part, modules in panels):
        more += f" The {style.ROWS} modules with the highest mean score."
    lines = [len(modules) for _, _, modules in panels]
    line = min(max(0.15, 0.09 * len(kinds)), 0.5)
    fig = style.figure(
        title,
        "Mean test score over runs of a classifier that reads one module alone. The 95 % intervals "
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
        style.head(ax, titled(panel), 4)
    axes[-1, 0].set_xlabel(_axis(rows))
    style.legend(fig, kinds)
    return fig


def _modules(part: pd.DataFrame) -> list[str]:
    """The modules to show, by name."""
    means = part.groupby("site")["test_score"].mean().sort_values(ascending=False, kind="stable")
    return sorted(means.index[: style.ROWS])


def _told(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows with a number, and what their representations are called."""
    rows = summary[summary["test_score"].notna()]
    return rows.assign(representation=representation(rows))


def _axis(rows: pd.DataFrame) -> str:
    return scores.any_of(scores.known(m).label for m in rows["metric"].unique())


def titled(panel: tuple) -> list[str]:
    """What tells a panel apart, as its title says it: no empty label, usual setting or metric, which the
    axis names."""
    named = [p for n, p in enumerate(panel) if n != WHERE.index("metric")]
    return [str(p) for p in named if p not in ("", "normal")]
