"""The transfer matrix as heat maps: trained on one collection, tested on another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from actprobe.probes.metrics import Metric
from actprobe.report.figures import style, words
from actprobe.report.transfer import names, trained
from actprobe.results import scores
from actprobe.results import transfer as matrices
from actprobe.results.tables import natural

_MATRICES = 8
_NUMBERED = 30  # collections on a side up to which cells hold numbers
_NAMES = 1.5  # inches
_NO_NUMBER = "#DDDDDD"


def transfer(chosen: Sequence[pd.DataFrame]) -> Figure:
    """A heat map train × test for each matrix of `transfer.chosen` that has a number."""
    title = "Transfer between collections"
    found = [cells for cells in chosen if cells["score"].notna().any()]
    if not found:
        return style.nothing(title, "No fit has a number on a collection of `apply_to`.")
    shown, more = style.first(found, _MATRICES, "matrices")
    sides = [_sides(cells) for cells in shown]
    most = max(len(side) for pair in sides for side in pair)
    cell = min(0.55, max(0.3, 4.0 / most)) if most <= _NUMBERED else 0.12
    cut = f" The first {style.ROWS} of {most:,} collections." if most > style.ROWS else ""
    across = 2 if len(shown) > 1 and most <= 10 else 1
    wide, high = (cell * min(max(len(pair[i]) for pair in sides), style.ROWS) for i in (1, 0))
    width = max(6.0, across * (max(wide, 1.6) + _NAMES + 1.3))
    fig = style.figure(
        title,
        "Rows: what was fitted; columns: what was scored. White: inside the null band. "
        "Grey: no number. Outlined: the same collection, the fit's own test rows. One probe for each "
        f"matrix, with the best mean validation score.{more}{cut}",
        width,
        (max(high, 1.2) + _NAMES + 1.0) * math.ceil(len(shown) / across),
    )
    axes = style.grid(fig, len(shown), across, False)
    for ax, cells, (rows, columns) in zip(axes, shown, sides, strict=True):
        _matrix(fig, ax, cells, rows[: style.ROWS], columns[: style.ROWS], cell)
        style.head(ax, names(cells), width / across - 0.6, 8.5)
    return fig


def _sides(cells: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Tasks of the rows, and collections of the columns: those that were fitted first."""
    tasks = cells.assign(task=trained(cells)).drop_duplicates("task")
    order = sorted(
        zip(tasks["train"], tasks["task"], strict=True), key=lambda t: tuple(map(natural, t))
    )
    fitted = [train for train, _ in order]
    tests = sorted(cells["test"].unique(), key=lambda t: (t not in fitted, natural(t)))
    return [task for _, task in order], tests


def _scale(metric: Metric, cells: pd.DataFrame) -> Normalize:
    """Colours around chance: to the best value of the metric, or as far as the scores go."""
    middle = (cells["null_low"] + cells["null_high"]) / 2
    centre = scores.chance(metric, cells.assign(dataset=cells["train"], chance=middle))
    if math.isnan(centre):
        centre = float(middle.mean() if middle.notna().any() else cells["score"].mean())
    best = metric.high if metric.higher else metric.low
    reach = abs(best - centre)
    if not 0 < reach < math.inf:
        reach = float((cells["score"] - centre).abs().max()) or 0.01
    return Normalize(centre - reach, centre + reach)


def _matrix(
    fig: Figure, ax: Axes, cells: pd.DataFrame, rows: list[str], columns: list[str], cell: float
) -> None:
    metric = scores.metric_of(cells)
    told = cells.assign(task=trained(cells), side=matrices.outside(cells), own=matrices.own(cells))
    told["inside"] = told["side"].eq(0) & told["null_low"].notna()
    square = {
        c: told.drop_duplicates(["task", "test"])
        .pivot(index="task", columns="test", values=c)
        .reindex(index=rows, columns=columns)
        for c in ("score", "inside", "own")
    }
    values = square["score"].to_numpy(float)
    inside, own = (square[c].eq(True).to_numpy() for c in ("inside", "own"))
    colours = matplotlib.colormaps[style.DIVERGING if metric.higher else f"{style.DIVERGING}_r"]
    scale = _scale(metric, cells)
    ax.set_facecolor(_NO_NUMBER)
    image = ax.imshow(np.where(inside, np.nan, values), cmap=colours, norm=scale)
    for (y, x), mine in np.ndenumerate(own):
        if inside[y, x]:
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc="white", ec="none"))
        if mine:
            ax.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, fc="none", ec="black", lw=1.1, zorder=3)
            )
    size = 7.0 if cell > 0.2 else 6.0
    if max(values.shape) <= _NUMBERED:
        _numbers(ax, values, inside, scale, cell)

    style.name_rows(ax, range(len(rows)), rows, _NAMES, size)
    shown = words.fitted(columns, _NAMES, size)
    turned = {"rotation": 45, "ha": "right"} if cell > 0.2 else {"rotation": 90}
    ax.set_xticks(np.arange(len(columns)), [shown[c] for c in columns], fontsize=size, **turned)
    ax.tick_params(length=0)
    ax.set_xlabel("tested on")
    ax.set_ylabel("trained on")
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=ax, shrink=0.7, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(metric.label)


def _numbers(
    ax: Axes, values: np.ndarray, inside: np.ndarray, scale: Normalize, cell: float
) -> None:
    """Scores in their cells: grey inside the band, white on dark colours."""
    text = {at: _short(v) for at, v in np.ndenumerate(values) if not np.isnan(v)}
    widest = max(words.width(t, 1) for t in text.values())
    size = min(8.0, 0.86 * cell / widest)
    for (y, x), t in text.items():
        dark = abs(scale(values[y, x]) - 0.5) > 0.3
        colour = "#888888" if inside[y, x] else "white" if dark else "#222222"
        ax.text(x, y, t, ha="center", va="center", fontsize=size, color=colour)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"
