"""Test scores of every dataset and method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.probes.metrics import Metric
from actprobe.report.figures import style
from actprobe.results import scores
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.views import (
    count,
    featured,
    over_datasets,
    per_dataset,
    place_name,
    probe_order,
)

_WIDTH, _NAMES = 7.6, 2.9  # inches


def scores_by_dataset(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test scores of every dataset and method with their intervals, at the place with most methods.

    A dataset with one-versus-rest labels has a line for each; in the mean it counts once. Of more lines
    than a figure holds, those with the highest and the lowest mean are shown.
    """
    metric = scores.metric_of(table)
    title = f"{scores.upper(metric.label)} by dataset"
    rows = featured(table)
    if rows.empty:
        return style.nothing(title, "There are no probes with a number.")
    methods, hidden = style.first(probe_order(rows["probe"]), style.LABELS, "methods")
    order = rows.groupby("task")["test_score"].mean().sort_values(kind="stable").index.tolist()
    datasets = rows["dataset"].nunique()
    what = "datasets" if len(order) == datasets else "labels"
    of = len(order)
    if of > style.ROWS:
        half = style.ROWS // 2
        order = [*order[:half], *order[-half:]]
        hidden += f" The {half} {what} with the highest and the lowest mean of {of:,}."
    dense = len(order) > 40
    line = 0.17 if dense else min(max(0.26, 0.085 * len(methods) + 0.1), 0.8)
    note = " One method only." if len(methods) == 1 else ""
    note += style.cut_off(rows["test_score"], metric)
    ticks = scores.own_chance(metric) and rows["chance"].notna().any()
    note += " Grey ticks: always the most frequent class." if ticks else ""
    fig = style.figure(
        title,
        f"{place_name(rows.iloc[0])}; {rows['frame'].iloc[0]}.{note}{hidden}\n"
        f"Bars: {confidence:.0%} interval over test rows. Top row: mean "
        f"{over_datasets(datasets, confidence)}.",
        _WIDTH,
        line * (len(order) + 1.5) + 0.9,
        methods,
    )
    ax = fig.subplots()
    for at in range(-1, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    _points(ax, rows, methods, order, metric, confidence)
    mean = f"mean of {count(datasets, 'dataset')}"
    lines = [*range(len(order)), len(order) + 0.5]
    style.name_rows(ax, lines, [*order, mean], _NAMES, 7.5 if dense else 9)
    ax.get_yticklabels()[-1].set_fontweight("bold")
    ax.axhline(len(order) - 0.25, color="#555555", lw=0.7)
    ax.set_ylim(-0.6, len(order) + 1.1)
    ax.grid(axis="x")
    ax.set_xlabel(metric.label)
    style.cut(ax, "x", metric)
    if dense:
        ax.tick_params(axis="x", top=True, labeltop=True)
    if ticks:
        own = rows.groupby("task")["chance"].mean().reindex(order)
        ax.plot(own, range(len(order)), "|", color="#888888", ms=5 if dense else 9, zorder=2)
    else:
        style.reference(ax, "x", scores.chance(metric, rows))
    style.legend(fig, methods)
    return fig


def _points(
    ax: Axes,
    rows: pd.DataFrame,
    methods: list[str],
    order: list[str],
    metric: Metric,
    confidence: float,
) -> None:
    """The datasets in this order from below, and above them the means over all datasets."""
    dense = len(order) > 40
    line = {d: i for i, d in enumerate(order)}
    for i, (m, (color, marker)) in enumerate(style.looks(methods).items()):
        every = rows[rows["probe"] == m].set_index("task")
        mine = every[every.index.isin(line)]
        shift = 0.72 * (0.5 - (i + 0.5) / len(methods))
        means = per_dataset(every, "test_score")
        mean, low, high = mean_interval(means, confidence, scores.span(metric))
        y = [line[d] + shift for d in mine.index] + [len(order) + 0.5 + shift]
        x = np.append(mine["test_score"], mean)
        bounds = np.array([np.append(mine["ci_low"], low), np.append(mine["ci_high"], high)])
        ax.errorbar(
            x,
            y,
            xerr=np.nan_to_num(np.abs(bounds - x)),
            fmt=marker,
            color=color,
            ms=3 if dense else 4.5,
            elinewidth=0.6 if dense else 0.9,
            label=m,
            zorder=3,
        )
