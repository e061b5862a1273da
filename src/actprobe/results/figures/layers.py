"""Mean test AUC by layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actprobe.results.figures import style
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.views import baseline, count, label_order, labelled, numbered


def auc_by_layer(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC over datasets by layer, one panel per protocol, model, site kind and position.

    Panels of one layer are left out where others have several.
    Methods probed on several layers are lines with an interval band, the others points with
    bars. Thin grey lines are the single datasets of the method with the most layers.
    """
    title = "Test AUC by layer"
    rows = labelled(numbered(table))
    rows = rows[baseline(rows)].assign(layer=lambda r: r["site"].map(style.layer_of))
    rows = rows[rows["layer"].notna()]
    if rows.empty:
        return style.nothing(title, "There are no baseline probes with a number on any layer.")
    kind = rows["site"].str.replace(r"\.\d+$", "", regex=True)
    kinds = [k for k in kind.unique() if k != "embed"]
    home = "resid_post" if "resid_post" in kinds else (kinds or ["embed"])[0]
    rows = rows.assign(kind=kind.where(kind != "embed", home))
    layers = rows.groupby(["protocol", "model", "kind", "position"])["layer"].transform("nunique")
    rows = rows[layers > 1] if (layers > 1).any() else rows
    labels = label_order(rows["label"])
    panels = list(rows.groupby(["protocol", "model", "kind", "position"], sort=True))
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    only = " One layer only." if rows["layer"].nunique() == 1 else ""
    subtitle = (
        f"Mean over {count(rows['dataset'].nunique(), 'dataset')} with a {confidence:.0%} "
        f"interval over datasets.{only}\n"
        "Thin grey lines: single datasets, for the method probed on the most layers."
    )
    width = max(6.4, 4.2 * across + 1.2)
    fig = style.figure(title, subtitle, width, 3.6 * down, labels)
    for ax, (place, panel) in zip(style.grid(fig, len(panels), across), panels, strict=True):
        _panel(ax, panel, labels, confidence)
        ax.set_title(_panel_title(place, panels))
    fig.axes[0].set_ylabel("test AUC")
    style.legend(fig, labels)
    return fig


def _panel_title(place: Any, panels: list) -> str:
    """Model, site kind and position; the protocol only where panels differ in it."""
    protocol, model, kind, position = place
    several = len({p[0] for p, _ in panels}) > 1
    return f"{model}, {kind}, {position}" + (f" ({protocol})" if several else "")


def _panel(ax: Axes, panel: pd.DataFrame, labels: list[str], confidence: float) -> None:
    values = panel.groupby(["label", "layer", "dataset"])["test_auc"].mean()
    layers = sorted(panel["layer"].astype(int).unique())
    widest = max(labels, key=lambda m: len(set(panel.loc[panel["label"] == m, "layer"])))
    present = [m for m in labels if m in values.index.get_level_values("label")]
    single = [m for m in present if values[m].index.get_level_values("layer").nunique() == 1]
    step = (layers[-1] - layers[0]) / max(len(layers) - 1, 1) or 1
    offsets = _offsets(single, beside_a_line=len(single) < len(present))
    shown = style.looks(labels)
    thin = values[widest].unstack("dataset")
    alpha = 0.6 if thin.shape[1] <= 40 else 0.3
    for _, line in thin.items():  # noqa: PERF102 (no dict)
        ax.plot(line.index, line, color="#A5A5A5", lw=0.6, alpha=alpha, zorder=1)
        if len(layers) == 1:
            ax.plot(line.index, line, ".", color="#A5A5A5", ms=3, zorder=1)
    for m in present:
        means = [(x, *mean_interval(v, confidence)) for x, v in values[m].groupby("layer")]
        x, mean, low, high = np.array(means, dtype=float).T
        color, marker = shown[m]
        if m in single:
            x = x + step * offsets[m]
            bars = np.nan_to_num([mean - low, high - mean])
            ax.errorbar(
                x, mean, bars, fmt=marker, color=color, ms=4.5, lw=1, capsize=2, label=m, zorder=4
            )
        else:
            ax.fill_between(x, low, high, color=color, alpha=0.18, lw=0, zorder=2)
            ax.plot(x, mean, marker=marker, color=color, lw=1.8, ms=4.5, label=m, zorder=3)
    ax.grid(axis="y")
    ax.set_xlabel("layer")
    if len(layers) <= 16:
        ax.set_xticks(layers, ["embed" if x < 0 else str(x) for x in layers])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(layers[0] - 0.5 * step, layers[-1] + 0.5 * step)
    ax.margins(y=0.04)


def _offsets(names: list[str], beside_a_line: bool) -> dict[str, float]:
    """Horizontal shifts, in layer steps, that keep points of one layer apart, and off the line."""
    places = [0.11 * (i - (len(names) - 1) / 2) for i in range(len(names))]
    if beside_a_line:
        half = len(names) // 2
        places = [0.11 * i for i in range(-half, len(names) - half + 1) if i]
    return dict(zip(names, places, strict=False))
