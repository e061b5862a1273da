"""Figures of contrastive probes: AUROC by layer, the map of cosines, and those of `curves`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.report.figures import style
from actprobe.report.figures.runs import layer_axis, layer_name, look, methods, read_at, views
from actprobe.results.views import layer_of

_BASELINES = {
    "baseline_length": ("text length", "#7F7F7F", (0, (1, 1.5))),
    "baseline_tfidf": ("TF-IDF of the training set", "#CC79A7", (0, (5, 2))),
    "baseline_tfidf_in_domain": ("TF-IDF in domain", "#E69F00", (0, (5, 1, 1, 1))),
}
_PERMUTED, _RANDOM = "null: permuted labels", "random directions"
_MOST_MAPS = 9


def by_layer(made: pd.DataFrame) -> Figure:
    """AUROC on each validation set by layer, with null bands, baselines and the layers chosen."""
    title = "AUROC by layer"
    shown, more = views(made)
    if not shown:
        return style.nothing(title, "No direction has a number.")
    text = made[made["source"] == ""].set_index(["train", "dataset", "method"])["test_auc"].dropna()
    lines = [b for b in _BASELINES if b in text.index.get_level_values("method")]
    legend = [*methods(made), _PERMUTED, _RANDOM, *(_BASELINES[b][0] for b in lines)]
    across = min(len(shown), 2)
    width = max(6.6, 5.2 * across)
    fig = style.figure(
        title,
        "Validation rows, with 95 % intervals. A band holds 95 % of a method's directions on permuted\n"
        "labels, thin lines 95 % of random ones. Ringed: chosen on held-out training rows." + more,
        width,
        3.9 * math.ceil(len(shown) / across),
        legend,
    )
    for ax, (name, rows) in zip(style.grid(fig, len(shown), across), shown, strict=True):
        _by_layer(ax, rows)
        data = tuple(rows.iloc[0][["train", "dataset"]])
        for b in lines:
            label, colour, dashes = _BASELINES[b]
            if (*data, b) in text.index:
                ax.axhline(text[(*data, b)], color=colour, ls=dashes, lw=1.4, label=label)
        style.head(ax, name, (width - 0.8) / across - 0.3)
    fig.axes[0].set_ylabel("AUROC")
    style.legend(fig, legend)
    return fig


def _by_layer(ax: Axes, rows: pd.DataFrame) -> None:
    layers = sorted(rows["layer"].unique())
    step = min(np.diff(layers), default=1.0)
    # Half a step beyond the ends, so that a single layer has a band as well.
    at = np.concatenate([[layers[0] - step / 2], layers, [layers[-1] + step / 2]])
    shown = methods(rows)
    for method in shown:
        null = rows[rows["method"] == method].sort_values("layer")
        edge = {
            f"{kind}_{end}": np.pad(null[f"null_{kind}_{end}"], 1, mode="edge")
            for kind in ("permuted", "random")
            for end in ("low", "high")
        }
        x = np.pad(null["layer"], 1, constant_values=(at[0], at[-1]))
        ax.fill_between(
            x, edge["permuted_low"], edge["permuted_high"], color=look(method)[0], alpha=0.13, lw=0
        )
        for end in ("low", "high"):
            ax.plot(x, edge[f"random_{end}"], color="#777777", lw=0.9, label=_RANDOM)
    ax.fill_between([], [], [], color="#777777", alpha=0.25, lw=0, label=_PERMUTED)
    ax.axhline(0.5, color="#555555", lw=0.6)
    for k, method in enumerate(shown):
        mine = rows[rows["method"] == method].sort_values("layer")
        colour, marker = look(method)
        x = (mine["layer"] + 0.12 * step * (k - (len(shown) - 1) / 2)).to_numpy()
        auc = mine["test_auc"].to_numpy()
        bars = np.maximum(np.nan_to_num([auc - mine["ci_low"], mine["ci_high"] - auc]), 0)
        ax.errorbar(
            x, auc, bars, color=colour, marker=marker, ms=4, lw=1.5, elinewidth=0.8, capsize=1.5,
            label=method, zorder=3,
        )  # fmt: skip
        best = mine["chosen"].to_numpy(bool)
        ax.plot(x[best], auc[best], "o", ms=11, mfc="none", mec=colour, mew=1.6, zorder=4)
    ax.grid(axis="y")
    layer_axis(ax, layers)
    ax.set_xlim(at[0], at[-1])


def cosine_map(cosines: Mapping[tuple[str, ...], pd.DataFrame]) -> Figure:
    """Cosine between the directions of every two layers, a map for each run."""
    title = "Cosine between layers' directions"
    maps = [(run, c) for run, c in cosines.items() if len(c) > 1]
    if not maps:
        return style.nothing(title, "There is no direction on more than one layer.")
    shown = maps[:_MOST_MAPS]
    more = f" The first {len(shown)} of {len(maps):,} runs." if len(maps) > len(shown) else ""
    across = min(len(shown), 3)
    width = max(4.6, 3.5 * across + 0.7)
    fig = style.figure(
        title,
        "1: the same direction, 0: at right angles, -1: opposite." + more,
        width,
        3.7 * math.ceil(len(shown) / across),
    )
    axes = style.grid(fig, len(shown), across, False)
    for ax, (run, c) in zip(axes, shown, strict=True):
        image = ax.imshow(c.to_numpy(), cmap=style.DIVERGING, vmin=-1, vmax=1)
        names = [layer_name(layer_of(site) or 0) for site in c.columns]
        every = math.ceil(len(names) / 12)
        ax.set_xticks(range(0, len(names), every), names[::every])
        ax.set_yticks(range(0, len(names), every), names[::every])
        if len(names) <= 8:
            style.cells(ax, c.to_numpy().round(2) + 0.0, "{:.2f}", 0.6, 6)
        train, model, kind, position, score_at, method = run
        parts = [train, model, kind, read_at(position, score_at), method]
        style.head(ax, parts, (width - 1.5) / across - 0.3)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    fig.colorbar(image, ax=axes, shrink=0.7, aspect=30, label="cosine")
    fig.supxlabel("layer", fontsize=9)
    fig.supylabel("layer", fontsize=9)
    return fig
