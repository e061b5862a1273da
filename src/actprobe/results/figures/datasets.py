"""Test AUC of every dataset and method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.figures import style
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.views import count, featured, label_order, place_name


def auc_by_dataset(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test AUC of every dataset and method with its interval, at the place with most methods."""
    title = "Test AUC by dataset"
    rows = featured(table)
    if rows.empty:
        return style.nothing(title, "There are no probes with a number.")
    methods = label_order(rows["label"])
    order = rows.groupby("dataset")["test_auc"].mean().sort_values(kind="stable").index.tolist()
    dense = len(order) > 40
    height = (0.17 if dense else max(0.26, 0.085 * len(methods) + 0.1)) * (len(order) + 1.5) + 0.9
    note = " One method only." if len(methods) == 1 else ""
    fig = style.figure(
        title,
        f"{place_name(rows.iloc[0])}.{note}\n"
        f"Bars: {confidence:.0%} interval over test rows; top row: over datasets.",
        7.6,
        height,
        methods,
    )
    ax = fig.subplots()
    for at in range(-1, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    spread = 0.7 if dense else 0.72
    for i, (m, (color, marker)) in enumerate(style.looks(methods).items()):
        mine = rows[rows["label"] == m].set_index("dataset")
        shift = spread * (0.5 - (i + 0.5) / len(methods))
        mean, low, high = mean_interval(mine["test_auc"], confidence)
        y = [order.index(d) + shift for d in mine.index] + [len(order) + 0.5 + shift]
        x = np.append(mine["test_auc"], mean)
        bounds = np.array([np.append(mine["ci_low"], low), np.append(mine["ci_high"], high)])
        bars = np.nan_to_num(np.abs(bounds - x))
        ax.errorbar(
            x,
            y,
            xerr=bars,
            fmt=marker,
            color=color,
            ms=3 if dense else 4.5,
            elinewidth=0.6 if dense else 0.9,
            label=m,
            zorder=3,
        )
    ticks = [*range(len(order)), len(order) + 0.5]
    ax.set_yticks(
        ticks, [*order, f"mean of {count(len(order), 'dataset')}"], fontsize=7.5 if dense else 9
    )
    ax.get_yticklabels()[-1].set_fontweight("bold")
    ax.axhline(len(order) - 0.25, color="#555555", lw=0.7)
    ax.set_ylim(-0.6, len(order) + 1.1)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("test AUC")
    if dense:
        ax.tick_params(axis="x", top=True, labeltop=True)
    if ax.get_xlim()[0] < 0.5:
        ax.axvline(0.5, color="#888888", lw=0.8, ls=(0, (4, 3)), zorder=1)
    style.legend(fig, methods)
    return fig
