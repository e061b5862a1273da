"""SAE probes against baselines: per dataset, and by the number of latents."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.compare import common
from actprobe.results.figures import style
from actprobe.results.select import SLICE, quiver
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.tables import method_rank, natural
from actprobe.results.views import baseline, control, count

NONE = "The table has no SAE probes with baselines at the same place."


def _side_by_side(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Reference rows, and per SAE and method the rows of the k chosen by validation.

    The place is the first one, settings in the order normal first, that has both; of several
    baselines the first in the usual order is the reference. SAE probes are in the order of their
    mean validation AUC, and their names say method and SAE.
    """
    known = table[table["test_auc"].notna() & ~control(table)]
    settings = sorted(known["setting"].unique(), key=lambda s: (s != "normal", s))
    for setting in settings:
        for _, rows in known[known["setting"] == setting].groupby(SLICE, sort=False):
            base, sparse = rows[baseline(rows)], rows[~baseline(rows)]
            if base.empty or sparse["val_auc"].isna().all():
                continue
            reference = base[base["method"] == min(base["method"], key=method_rank)]
            chosen = {
                f"{source}, {method}": quiver(mine)
                for (source, method), mine in sparse.groupby(["source", "method"], sort=False)
            }
            order = sorted(chosen, key=lambda n: (-chosen[n]["val_auc"].mean(), natural(n)))
            return reference, {name: chosen[name] for name in order}
    return known.iloc[:0], {}


def _per_dataset(probe: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Mean test AUC per dataset over the matched conditions: columns probe, reference."""
    sides = common(probe, reference)[:2]
    means = [rows.groupby("dataset")["test_auc"].mean() for rows in sides]
    return pd.DataFrame({"probe": means[0], "reference": means[1]})


def _where(reference: pd.DataFrame) -> str:
    r = reference.iloc[0]
    over = "" if r["setting"] == "normal" else ", mean over conditions"
    return f"{r['model']}, {r['site']}, {r['position']}; setting {r['setting']}{over}"


def sae_scatter(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test AUC of SAE probes against the baseline, a point per dataset, a panel per SAE."""
    title = "SAE probes against the baseline"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    shown = list(chosen)[: style.MANY]
    more = len(chosen) - len(shown)
    which = (
        f" The {len(shown)} SAEs with the highest validation AUC of {len(chosen)}." if more else ""
    )
    across = min(3, len(shown))
    name = reference["method"].iloc[0]
    fig = style.figure(
        title,
        f"{_where(reference)}.{which}\nEvery point is a dataset; k is chosen by validation.",
        3.0 * across + 0.5,
        3.2 * -(-len(shown) // across),
    )
    axes = style.grid(fig, len(shown), across)
    low = 1.0
    for ax, sae in zip(axes, shown, strict=True):
        means = _per_dataset(chosen[sae], reference)
        above = means["probe"] > means["reference"]
        low = min(low, float(means.to_numpy().min()))
        for side, color in ((above, "#D55E00"), (~above, "#0072B2")):
            part = means[side]
            ax.plot(part["reference"], part["probe"], "o", color=color, ms=3.2, alpha=0.7, mew=0)
        difference = means["probe"] - means["reference"]
        delta, *bounds = mean_interval(difference, confidence, (-1.0, 1.0))
        interval = "" if pd.isna(bounds[0]) else f"\n[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
        ax.set_title(sae.replace(", ", "\n"), fontsize=8)
        ax.text(
            0.04,
            0.96,
            f"mean difference {delta:+.4f}{interval}\nhigher on {above.sum()} of {len(means)}",
            transform=ax.transAxes,
            va="top",
            fontsize=7.5,
        )
        ax.set_xlabel(f"{name} test AUC")
        ax.set_ylabel("SAE probe test AUC" if ax in axes[::across] else "")
        ax.grid()
    for ax in axes:
        ax.plot([0, 1], [0, 1], color="#555555", lw=0.8, zorder=1)
        ax.set_xlim(low - 0.02, 1.01)
        ax.set_ylim(low - 0.02, 1.01)
        ax.set_aspect("equal")
    return fig


def sae_by_dataset(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Heat map: SAE probe minus baseline, a row per dataset and a column per SAE."""
    title = "SAE probe minus baseline, by dataset"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    means = {sae: _per_dataset(rows, reference) for sae, rows in chosen.items()}
    delta = pd.DataFrame({sae: m["probe"] - m["reference"] for sae, m in means.items()})
    delta = delta.loc[delta.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    saes = sorted(delta.columns, key=natural)
    dense = len(delta) > 40
    row = 0.155 if dense else 0.26
    column = 0.62 if len(saes) <= 8 else 0.3
    fig = style.figure(
        title,
        f"{_where(reference)}.\nDifference in test AUC to {reference['method'].iloc[0]}; "
        "k is chosen by validation. Purple: the SAE probe is better.",
        max(6.4, 2.6 + column * len(saes)),
        row * len(delta) + 1.9,
    )
    ax = fig.subplots()
    limit = float(np.nanmax(np.abs(delta.to_numpy()))) or 0.01
    image = ax.pcolormesh(
        delta[saes].to_numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, rasterized=False
    )
    if len(saes) <= 8 and not dense:
        for y, values in enumerate(delta[saes].to_numpy()):
            for x, v in enumerate(values):
                color = "white" if abs(v) > 0.6 * limit else "#222222"
                words = "" if np.isnan(v) else f"{v:+.3f}"
                ax.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize=7, color=color)
    ax.set_yticks(np.arange(len(delta)) + 0.5, delta.index, fontsize=7 if dense else 9)
    ax.set_xticks(np.arange(len(saes)) + 0.5, saes, rotation=40, ha="right", fontsize=8)
    ax.tick_params(length=0)
    ax.invert_yaxis()
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = fig.colorbar(image, ax=ax, location="top", aspect=40, pad=0.01, shrink=0.7)
    bar.outline.set_visible(False)
    bar.set_label("difference in test AUC")
    return fig


def auc_by_k(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC of SAE probes by the number of latents k, a line per SAE."""
    title = "Test AUC by number of latents"
    reference, chosen = _side_by_side(table)
    if not chosen:
        return style.nothing(title, NONE)
    place = reference[SLICE].iloc[0]
    rows = table[(table[SLICE] == place).all(axis=1) & table["test_auc"].notna()]
    rows = rows[~baseline(rows) & ~control(rows) & rows["k"].notna()]
    rows = rows.assign(name=rows["source"] + ", " + rows["method"])
    if rows.empty:
        return style.nothing(title, "No SAE probe says how many latents it reads.")
    shown = list(chosen)[: style.MANY]
    width = 7.4
    others = len(chosen) - len(shown)
    banded = len(shown) <= 3
    bands = f"; bands: {confidence:.0%} interval over datasets" if banded else ""
    note = f" Grey: {count(others, 'other SAE')}." if others else ""
    fig = style.figure(
        title,
        f"{_where(reference)}.\n"
        f"Means over {count(rows['dataset'].nunique(), 'dataset')}{bands}.{note}",
        width,
        3.8,
        shown,
    )
    ax = fig.subplots()
    level = common(rows, reference)[1].groupby("dataset")["test_auc"].mean().mean()
    ax.axhline(level, color="#0072B2", lw=1.2, ls=(0, (4, 3)))
    ax.annotate(
        f"{reference['method'].iloc[0]}, all dimensions: {level:.3f}",
        (0.01, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color="#0072B2",
    )
    looks = style.looks(shown)
    for name, mine in rows.groupby("name", sort=False):
        values = mine.groupby(["k", "dataset"])["test_auc"].mean()
        points = [(k, *mean_interval(v, confidence)) for k, v in values.groupby("k")]
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
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
    ax.set_xlabel("k, latents read by the probe")
    ax.set_ylabel("mean test AUC")
    ax.grid(axis="y")
    style.legend(fig, shown)
    return fig
