"""Figures of single rows' scores: ROC curves, and the distributions of both classes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure

from actprobe.report.figures import style
from actprobe.report.figures.runs import MOST_TICKS, Found, layer_name, methods, views

_CLASSES = {0: ("other class", "#E69F00"), 1: ("positive class", "#0072B2")}


def roc(made: pd.DataFrame, found: Found) -> Figure:
    """ROC curves of every layer: a row of panels for each view, a panel for each method."""
    from sklearn.metrics import roc_curve

    title = "ROC by layer"
    shown, more = views(made)
    if not shown:
        return style.nothing(title, "No direction has a number.")
    columns = methods(made)
    layers = sorted({layer for _, rows in shown for layer in rows["layer"]})
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, len(layers))))
    width = max(4.6, 3.1 * len(columns) + 1.3)
    fig = style.figure(
        title,
        "Validation rows. Thick: the layer chosen on held-out training rows." + more,
        width,
        3.5 * len(shown),
    )
    axes = fig.subplots(len(shown), len(columns), squeeze=False, sharex=True, sharey=True)
    for line, (name, rows) in zip(axes, shown, strict=True):
        for ax, method in zip(line, columns, strict=True):
            ax.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=(0, (4, 3)))
            for row in rows[rows["method"] == method].itertuples():
                y, scores = _scores(row, found)
                if len(np.unique(y)) < 2 or not np.isfinite(scores).all():
                    continue
                x, height, _ = roc_curve(y, scores)
                thick, order = (2.6, 3) if row.chosen else (1.0, 2)
                ax.plot(x, height, color=colours(layers.index(row.layer)), lw=thick, zorder=order)
            style.head(ax, [*name, method], (width - 1.6) / len(columns) - 0.2)
    _layer_bar(fig, axes, colours, layers)
    for ax in axes[-1]:
        ax.set_xlabel("false positive rate")
    for ax in axes[:, 0]:
        ax.set_ylabel("true positive rate")
    return fig


def _scores(row, found: Found) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Labels and mean scores of the validation rows behind a row of the table."""
    d = found[row.key]
    return d.y, d.values[:, 0]


def _layer_bar(fig: Figure, axes: np.ndarray, colours: Colormap, layers: Sequence[float]) -> None:
    """A colour for each layer, named where they are few enough."""
    if len(layers) < 2:
        return
    scale = ScalarMappable(BoundaryNorm(np.arange(len(layers) + 1) - 0.5, len(layers)), colours)
    every = -(-len(layers) // MOST_TICKS)
    bar = fig.colorbar(scale, ax=axes, label="layer", aspect=30, shrink=0.8, drawedges=False)
    bar.set_ticks(range(0, len(layers), every), labels=[layer_name(x) for x in layers[::every]])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def scores(made: pd.DataFrame, found: Found) -> Figure:
    """Distributions of the scores of both classes by layer, a panel for each view and method."""
    title = "Scores of both classes"
    shown, more = views(made)
    if not shown:
        return style.nothing(title, "No direction has a number.")
    columns = methods(made)
    layers = len({layer for _, rows in shown for layer in rows["layer"]})
    if layers > MOST_TICKS:
        more = f"\n{MOST_TICKS} of {layers} layers.{more}"
    names = [name for name, _ in _CLASSES.values()]
    width = max(6.4, (0.36 * min(layers, MOST_TICKS) + 1.2) * len(columns))
    fig = style.figure(
        title,
        "Mean score of each validation row, in standard deviations of its layer. Lines: medians. "
        "Bold layer: chosen on held-out training rows." + more,
        width,
        3.0 * len(shown),
        names,
    )
    axes = fig.subplots(len(shown), len(columns), squeeze=False, sharey=True)
    for line, (name, rows) in zip(axes, shown, strict=True):
        for ax, method in zip(line, columns, strict=True):
            _violins(ax, rows[rows["method"] == method].sort_values("layer"), found)
            style.head(ax, [*name, method], (width - 0.8) / len(columns) - 0.2)
        line[0].set_ylabel("score")
    fig.supxlabel("layer", fontsize=9)
    for label, colour in _CLASSES.values():
        axes[0, 0].plot([], [], "s", ms=7, color=colour, alpha=0.75, label=label)
    style.legend(fig, names)
    return fig


def _violins(ax: Axes, rows: pd.DataFrame, found: Found) -> None:
    """Half a violin for each class at each layer."""
    if rows.empty:  # another entry's method
        ax.set_xticks([])
        return
    keep = np.unique(np.linspace(0, len(rows) - 1, MOST_TICKS).round().astype(int))
    rows = rows.iloc[keep]
    ax.axhline(0, color="#BBBBBB", lw=0.6, zorder=0)
    for at, row in enumerate(rows.itertuples()):
        y, values = _scores(row, found)
        values = (values - values.mean()) / (values.std() or 1.0)
        for c in (0, 1):
            part = np.clip(values[y == c], -4, 4)
            if not len(part):
                continue
            if np.ptp(part) > 0:
                half = {"side": "high" if c else "low", "showextrema": False}
                drawn = ax.violinplot([part], [at], widths=0.9, **half)  # type: ignore[arg-type]
                drawn["bodies"][0].set(facecolor=_CLASSES[c][1], alpha=0.75, lw=0)  # type: ignore[index]
            end = at + (0.4 if c else -0.4)
            ax.plot([at, end], [np.median(part)] * 2, color="#222222", lw=1.1, zorder=3)
    ax.set_xticks(range(len(rows)), [layer_name(x) for x in rows["layer"]])
    for label, chosen in zip(ax.get_xticklabels(), rows["chosen"], strict=True):
        label.set_fontweight("bold" if chosen else "normal")
