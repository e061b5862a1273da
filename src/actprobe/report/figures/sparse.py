"""SAE probes against baselines: per dataset, and by the number of latents."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.probes.metrics import Metric
from actprobe.report.figures import style, words
from actprobe.results import scores
from actprobe.results.compare import common
from actprobe.results.select import SLICE, quiver
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.tables import TASK, method_rank, natural
from actprobe.results.views import baseline, control, count, per_dataset, tasks

NONE = "The table has no SAE probes with baselines on the same datasets at the same place."
_NAMED = 8  # SAEs up to which a heat map has wide columns
_COLUMNS = 40  # SAEs of a heat map


def _side_by_side(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Reference rows, and per SAE and method the rows of the k chosen by validation.

    The place is the first one, settings in the order normal first, that has both on one dataset; of
    several baselines the first in the usual order is the reference. SAE probes are in the order of
    their mean validation score, and their names say method and SAE.
    """
    metric = scores.metric_of(table)
    known = table[table["test_score"].notna() & ~control(table)]
    settings = sorted(known["setting"].unique(), key=lambda s: (s != "normal", s))
    for setting in settings:
        for _, rows in known[known["setting"] == setting].groupby(SLICE, sort=False):
            base, sparse = rows[baseline(rows)], rows[~baseline(rows)]
            if base.empty:
                continue
            reference = base[base["method"] == min(base["method"], key=method_rank)]
            chosen = {}
            for (source, method), mine in sparse.groupby(["source", "method"], sort=False):
                best = quiver(mine)
                if len(_per_task(best, reference)):
                    chosen[f"{source}, {method}"] = best
            if chosen:
                val = {n: per_dataset(r, "val_score").mean() for n, r in chosen.items()}
                val = {n: scores.goodness(v, metric) for n, v in val.items()}
                order = sorted(chosen, key=lambda n: (-val[n], natural(n)))
                return reference, {name: chosen[name] for name in order}
    return known.iloc[:0], {}


def _per_task(probe: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Mean test score per dataset and label over the matched conditions: columns probe, reference."""
    sides = common(probe, reference)[:2]
    means = [rows.groupby(TASK)["test_score"].mean() for rows in sides]
    return pd.DataFrame({"probe": means[0], "reference": means[1]})


def _where(reference: pd.DataFrame) -> str:
    r = reference.iloc[0]
    over = "" if r["setting"] == "normal" else f", {r['setting']}, mean over conditions"
    place = ", ".join(str(r[c]) for c in ("model", "site", "position") if r[c])
    return f"{place}; {r['protocol']}{over}"


def sae_scatter(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test scores of SAE probes against the baseline, a point per dataset, a panel per SAE."""
    title = "SAE probes against the baseline"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    metric = scores.metric_of(table)
    shown = list(chosen)[: style.MANY]
    more = len(chosen) - len(shown)
    best = f"best validation {scores.short(metric)}"
    which = f" The {len(shown)} SAEs with the {best} of {len(chosen)}." if more else ""
    means = {sae: _per_task(chosen[sae], reference) for sae in shown}
    every = pd.concat(means.values())
    point = (
        "dataset" if (every.index.get_level_values("label") == "").all() else "dataset and label"
    )
    off = style.cut_off(every.min(axis=1), metric)
    across = min(3, len(shown))
    name = reference["method"].iloc[0]
    width = max(4.4, 3.0 * across + 0.7)
    fig = style.figure(
        title,
        f"{_where(reference)}.{which}{off}\nEvery point is a {point}; k is chosen by validation.",
        width,
        3.4 * -(-len(shown) // across),
    )
    axes = style.grid(fig, len(shown), across)
    for ax, sae in zip(axes, shown, strict=True):
        _scatter(ax, means[sae], metric, confidence)
        style.head(ax, sae.rsplit(", ", 1), (width - 0.8) / across - 0.5, 8)
    low, high = _ends(every, metric)
    for ax in axes:
        ax.plot([low, high], [low, high], color="#555555", lw=0.8, zorder=1)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_aspect("equal")
    fig.supxlabel(f"{words.shortened(name, 3)} {metric.label}", fontsize=9)
    fig.supylabel(f"SAE probe {metric.label}", fontsize=9)
    return fig


def _ends(means: pd.DataFrame, metric: Metric) -> tuple[float, float]:
    """Ends of both axes: the lowest value, and the highest that there can be or is."""
    low, high = float(means.to_numpy().min()), float(means.to_numpy().max())
    if metric.low == -math.inf:
        low = max(low, style.FLOOR)
    high = metric.high if math.isfinite(metric.high) else high
    room = 0.02 if math.isfinite(metric.high) else 0.05 * ((high - low) or 1.0)
    return low - room, high + room / 2


def _scatter(ax: Axes, means: pd.DataFrame, metric: Metric, confidence: float) -> None:
    above = scores.goodness(means["probe"] - means["reference"], metric) > 0
    for side, color in ((above, "#D55E00"), (~above, "#0072B2")):
        part = means[side]
        ax.plot(part["reference"], part["probe"], "o", color=color, ms=3.2, alpha=0.7, mew=0)
    each = (means["probe"] - means["reference"]).groupby("dataset").mean()
    delta, *bounds = mean_interval(each, confidence, scores.differences(metric))
    better = "higher" if metric.higher else "lower"
    interval = "" if pd.isna(bounds[0]) else f"\n[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
    ax.text(
        0.04,
        0.96,
        f"mean difference {delta:+.4f}{interval}\n{better} on {above.sum():,} of {len(means):,}",
        transform=ax.transAxes,
        va="top",
        fontsize=7.5,
    )
    ax.grid()


def sae_by_dataset(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Heat map: SAE probe minus baseline, a row per dataset and a column per SAE.

    Of more datasets than a figure holds, those with the largest and the smallest mean are shown.
    """
    title = "SAE probe minus baseline, by dataset"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    metric = scores.metric_of(table)
    better = "Purple" if metric.higher else "Orange"
    best = f"SAEs, those with the best validation {scores.short(metric)}"
    names, more = style.first(chosen, _COLUMNS, best)
    means = {sae: _per_task(chosen[sae], reference) for sae in names}
    delta = pd.DataFrame({sae: m["probe"] - m["reference"] for sae, m in means.items()})
    delta.index = pd.Index(tasks(delta.index.to_frame()).to_numpy())
    delta = delta.loc[delta.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    if len(delta) > style.ROWS:
        half = style.ROWS // 2
        more += f" The {half} datasets with the largest and the smallest mean of {len(delta):,}."
        delta = pd.concat([delta.head(half), delta.tail(half)])
    saes = sorted(delta.columns, key=natural)
    dense = len(delta) > 40
    fig = style.figure(
        title,
        f"{_where(reference)}.{more}\nDifference in {metric.label} to {reference['method'].iloc[0]}; "
        f"k is chosen by validation. {better}: the SAE probe is better.",
        max(6.4, 3.6 + (0.62 if len(saes) <= _NAMED else 0.3) * len(saes)),
        (0.155 if dense else 0.26) * len(delta) + 2.6,
    )
    ax = fig.subplots()
    _heat_map(fig, ax, delta[saes], 7 if dense else 9, metric)
    return fig


def _heat_map(fig: Figure, ax: Axes, delta: pd.DataFrame, size: float, metric: Metric) -> None:
    values = delta.to_numpy()
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 0.01
    image = ax.imshow(values, cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    if delta.shape[1] <= _NAMED and len(delta) <= 40:
        style.cells(ax, values, "{:+.3f}", 0.6 * limit, 7)
    style.name_rows(ax, range(len(delta)), delta.index.tolist(), 2.4, size)
    shown = words.fitted(delta.columns, 2.2, 8)
    ax.set_xticks(np.arange(delta.shape[1]), shown.values(), rotation=40, ha="right", fontsize=8)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = fig.colorbar(image, ax=ax, location="top", aspect=40, pad=0.01, shrink=0.7)
    bar.outline.set_visible(False)
    bar.set_label(f"difference in {metric.label}")


def scores_by_k(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test score of SAE probes by the number of latents k, a line per SAE."""
    metric = scores.metric_of(table)
    title = f"{scores.upper(metric.label)} by number of latents"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    place = reference[SLICE].iloc[0]
    rows = table[(table[SLICE] == place).all(axis=1) & table["test_score"].notna()]
    rows = rows[~baseline(rows) & ~control(rows) & rows["k"].notna()]
    rows = rows.assign(name=rows["source"] + ", " + rows["method"])
    if rows.empty:
        return style.nothing(title, "No SAE probe says how many latents it reads.")
    shown = [n for n in chosen if n in set(rows["name"])][: style.MANY]
    others = rows["name"].nunique() - len(shown)
    banded = len(shown) <= 3
    bands = f"; bands: {confidence:.0%} interval over datasets" if banded else ""
    note = f" Grey: {count(others, 'other SAE')}." if others else ""
    fig = style.figure(
        title,
        f"{_where(reference)}.\n"
        f"Means over {count(rows['dataset'].nunique(), 'dataset')}{bands}.{note}",
        7.4,
        3.8,
        shown,
    )
    ax = fig.subplots()
    _level(ax, rows, reference)
    _by_k(ax, rows, shown, banded, confidence)
    style.cut(ax, "y", metric)
    style.reference(ax, "y", scores.chance(metric, rows))
    ax.set_xlabel("k, latents read by the probe")
    ax.set_ylabel(f"mean {metric.label}")
    ax.grid(axis="y")
    style.legend(fig, shown)
    return fig


def _level(ax: Axes, rows: pd.DataFrame, reference: pd.DataFrame) -> None:
    """The reference on the datasets of these rows, as a line."""
    level = per_dataset(common(rows, reference)[1], "test_score").mean()
    if pd.isna(level):
        return
    ax.axhline(level, color="#0072B2", lw=1.2, ls=(0, (4, 3)))
    ax.annotate(
        f"{words.shortened(reference['method'].iloc[0], 3, 8)}, all dimensions: {level:.3f}",
        (0.01, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color="#0072B2",
    )


def _by_k(ax: Axes, rows: pd.DataFrame, shown: list[str], banded: bool, confidence: float) -> None:
    looks, span = style.looks(shown), scores.span(scores.metric_of(rows))
    for name, mine in rows.groupby("name", sort=False):
        points = [
            (k, *mean_interval(per_dataset(v, "test_score"), confidence, span))
            for k, v in mine.groupby("k")
        ]
        k, mean, low, high = np.array(points, dtype=float).T
        if name in looks:
            color, marker = looks[str(name)]
            ax.plot(k, mean, marker=marker, color=color, lw=1.5, ms=4.5, label=name, zorder=3)
            if banded:
                ax.fill_between(k, low, high, color=color, alpha=0.1, lw=0)
        else:
            ax.plot(k, mean, color="#BBBBBB", lw=0.8, zorder=1)
    ks = sorted(rows["k"].unique())
    ax.set_xscale("log", base=2)
    if len(ks) <= 16:
        ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
