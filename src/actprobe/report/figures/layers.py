"""Mean test scores by layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actprobe.probes.metrics import Metric
from actprobe.report.figures import style
from actprobe.results import scores
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.views import (
    baseline,
    count,
    differing,
    layer_of,
    named,
    over_datasets,
    probe_order,
    usual,
)

_PANEL = ["protocol", "under", "model", "site_kind", "position"]
_THIN = 200  # datasets that can be lines of their own
_TICKS = 16


def scores_by_layer(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test scores over datasets by layer, one panel per protocol, model, site kind and position.

    Panels of one layer are left out where others have several.
    Methods probed on several layers are lines with an interval band, the others points with
    bars. Thin grey lines are the single datasets of the method with the most layers.
    """
    metric = scores.metric_of(table)
    title = f"{scores.upper(metric.label)} by layer"
    rows = named(usual(table))
    rows = rows[baseline(rows)].assign(layer=lambda r: r["site"].map(layer_of))
    rows = rows[rows["layer"].notna()]
    if rows.empty:
        return style.nothing(title, "There are no baseline probes with a number on any layer.")
    kind = rows["site"].str.replace(r"\.\d+$", "", regex=True)
    kinds = [k for k in kind.unique() if k != "embed"]
    home = "resid_post" if "resid_post" in kinds else (kinds or ["embed"])[0]
    rows = rows.assign(site_kind=kind.where(kind != "embed", home))
    layers = rows.groupby(_PANEL)["layer"].transform("nunique")
    rows = rows[layers > 1] if (layers > 1).any() else rows
    told, subtitle = _told(rows, confidence)
    subtitle += style.cut_off(rows["test_score"], metric)
    panels, more = style.first(rows.groupby(_PANEL, sort=True), style.PANELS, "places")
    rows = pd.concat([panel for _, panel in panels])
    labels, hidden = style.first(probe_order(rows["probe"]), style.LABELS, "methods")
    across = min(len(panels), 3)
    width = max(6.4, 4.2 * across + 1.2)
    fig = style.figure(
        title, subtitle + more + hidden, width, 3.6 * math.ceil(len(panels) / across), labels
    )
    inches = (width - 0.8) / across - 0.3
    for ax, (place, panel) in zip(style.grid(fig, len(panels), across), panels, strict=True):
        _panel(ax, panel, labels, metric, confidence)
        style.head(ax, [p for c, p in zip(_PANEL, place, strict=True) if c in told], inches)
    for ax in fig.axes[:1]:
        ax.set_ylabel(metric.label)
        style.cut(ax, "y", metric)
    for ax in fig.axes[: len(panels)]:
        style.reference(ax, "y", scores.chance(metric, rows))
    style.legend(fig, labels)
    return fig


def _told(rows: pd.DataFrame, confidence: float) -> tuple[list[str], str]:
    """What stands above each panel, and the lines above all of them."""
    told = ["model", "site_kind", "position", *differing(rows, ["protocol", "under"])]
    first = rows.iloc[0]
    shared = ", ".join(str(first[c]) for c in ("protocol", "under") if c not in told)
    only = " One layer only." if rows["layer"].nunique() == 1 else ""
    thin = "lines: single datasets"
    if rows["dataset"].nunique() > _THIN:
        thin = "band: the middle 80 % of the datasets"
    n = rows["dataset"].nunique()
    return told, (
        f"{shared}{'. ' * bool(shared)}Mean over {count(n, 'dataset')} "
        f"{over_datasets(n, confidence)}.{only}\n"
        f"Thin grey {thin}, for the method probed on the most layers."
    )


def _panel(
    ax: Axes, panel: pd.DataFrame, labels: list[str], metric: Metric, confidence: float
) -> None:
    by = ["probe", "layer", "dataset"]
    values: Any = panel.groupby([*by, "label"])["test_score"].mean().groupby(by).mean()
    layers = sorted(panel["layer"].astype(int).unique())
    widest = max(labels, key=lambda m: len(set(panel.loc[panel["probe"] == m, "layer"])))
    present = [m for m in labels if m in values.index.get_level_values("probe")]
    single = [m for m in present if values[m].index.get_level_values("layer").nunique() == 1]
    step = (layers[-1] - layers[0]) / max(len(layers) - 1, 1) or 1
    offsets = _offsets(single, beside_a_line=len(single) < len(present))
    shown = style.looks(labels)
    if widest in present:
        _datasets(ax, values[widest].unstack("dataset"))
    for m in present:
        by_layer = values[m].groupby("layer")
        means = [(x, *mean_interval(v, confidence, scores.span(metric))) for x, v in by_layer]
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
    if len(layers) <= _TICKS:
        ax.set_xticks(layers, ["embed" if x < 0 else str(x) for x in layers])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(layers[0] - 0.5 * step, layers[-1] + 0.5 * step)
    ax.margins(y=0.04)


def _datasets(ax: Axes, values: pd.DataFrame) -> None:
    """The single datasets [layer, dataset] as thin lines, or of many the middle 80 %."""
    if values.shape[1] > _THIN:
        low, high = values.quantile([0.1, 0.9], axis=1).to_numpy()
        ax.fill_between(values.index, low, high, color="#A5A5A5", alpha=0.3, lw=0, zorder=1)
        return
    alpha = 0.6 if values.shape[1] <= 40 else 0.3
    for _, line in values.items():  # noqa: PERF102 (no dict)
        ax.plot(line.index, line, color="#A5A5A5", lw=0.6, alpha=alpha, zorder=1)
        if len(values) == 1:
            ax.plot(line.index, line, ".", color="#A5A5A5", ms=3, zorder=1)


def _offsets(names: list[str], beside_a_line: bool) -> dict[str, float]:
    """Horizontal shifts, in layer steps, that keep points of one layer apart, and off the line."""
    apart = 0.11 * min(1.0, 7 / max(len(names), 1))
    places = [apart * (i - (len(names) - 1) / 2) for i in range(len(names))]
    if beside_a_line:
        half = len(names) // 2
        places = [apart * i for i in range(-half, len(names) - half + 1) if i]
    return dict(zip(names, places, strict=False))
