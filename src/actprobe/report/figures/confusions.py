"""The confusion matrix of each collection's best probe."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.report.confusions import named
from actprobe.report.figures import style, words
from actprobe.results.confusion import best, square

_MATRICES = 8
_SIDE = 3.0  # inches of a confusion matrix
_NAME, _LINE = 7.0, 8.5  # points of a name, and of the line in which it stands


def confusion(table: pd.DataFrame) -> Figure:
    """Confusion matrix of the probe with the best mean validation score, per collection."""
    title = "Confusion matrix"
    found = best(table)
    if not found:
        return style.nothing(title, "No probe tells more than two classes apart.")
    shown, more = style.first(found, _MATRICES, "collections")
    across = min(len(shown), 2)
    width = max(5.4, 5.0 * across)
    fig = style.figure(
        title,
        "The probe with the best mean validation score. Shares of the true class in %, test rows of all "
        f"runs together.{more}",
        width,
        5.0 * math.ceil(len(shown) / across),
    )
    for ax, (cell, lines) in zip(style.grid(fig, len(shown), across, False), shown, strict=True):
        _confusion(ax, square(lines))
        style.head(ax, named(cell), _SIDE)
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
        style.cells(ax, shares, "{:.0f}", 60, size)
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
