"""The confusion matrix of each collection's best probe."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.results.confusion import square
from actprobe.results.features import WHERE, is_control
from actprobe.results.figures import style, words
from actprobe.results.figures.features import titled

_MATRICES = 8
_SIDE = 3.0  # inches of a confusion matrix
_NAME, _LINE = 7.0, 8.5  # points of a name, and of the line in which it stands


def confusion(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Confusion matrix of the cell with the best mean validation score, per collection."""
    title = "Confusion matrix"
    rows = summary[summary["test_score"].notna() & ~is_control(summary)]
    if rows.empty:
        return style.nothing(title, "No classifier has a number.")
    groups, more = style.first(rows.groupby(WHERE, sort=False), _MATRICES, "collections")
    best = [part.loc[part["val_score"].fillna(-1).idxmax()] for _, part in groups]
    across = min(len(best), 2)
    fig = style.figure(
        title,
        "The representation, columns and method with the best mean validation score. Shares of the "
        f"true class in %, test rows of all runs together.{more}",
        max(5.4, 5.0 * across),
        5.0 * math.ceil(len(best) / across),
    )
    axes = fig.subplots(math.ceil(len(best) / across), across, squeeze=False)
    for ax, cell in zip(axes.flat, best, strict=False):
        keys = [*WHERE, "source", "columns", "method"]
        mine = table[(table[keys] == cell[keys]).all(axis=1)]
        _confusion(ax, square(mine))
        style.head(ax, titled(tuple(cell[keys])), _SIDE)
    for ax in list(axes.flat)[len(best) :]:
        ax.set_visible(False)
    return fig


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
