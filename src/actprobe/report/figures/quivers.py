"""The quiver of arrows: what choosing by validation gives, and how much of it is ties."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.report.figures import style
from actprobe.results import scores
from actprobe.results.select import BASELINES, SLICE, TIES, quiver_table
from actprobe.results.stats import CONFIDENCE
from actprobe.results.views import differing

_LINES = 40
_WIDTH, _NAMES = 9.0, 3.4  # inches
_PLACE = [c for c in SLICE if c not in ("setting", "experiment", "metric")]


def quiver(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test score of the method chosen by validation, with the band over all tie orders."""
    title = "Choosing the method by validation (quiver of arrows)"
    metric = scores.metric_of(table)
    rows = quiver_table(table, confidence)
    if rows.empty:
        return style.nothing(title, "No place has more than one method to choose from.")
    told = differing(rows, _PLACE)
    where = ", ".join(filter(None, (str(rows[c].iloc[0]) for c in _PLACE if c not in told)))
    names = [", ".join([*(str(r[c]) for c in told), r["candidates"]]) for _, r in rows.iterrows()]
    rows = rows.assign(name=names, first=rows["setting"] != "normal")
    rows = rows.sort_values("first", kind="stable")
    of, rows = len(rows), rows.head(_LINES)
    more = f" The first {_LINES} of {of:,} choices." if of > _LINES else ""
    settings = list(rows.groupby("setting", sort=False))
    heights = [0.36 * len(p) + 0.35 for _, p in settings]
    fig = style.figure(
        title,
        f"{where}{'. ' * bool(where)}Thick bars: the band over all tie orders; thin lines: "
        f"{confidence:.0%} interval over datasets.{more}\n"
        f"Points: the tie rule “{TIES['methods']}”.",
        _WIDTH,
        sum(heights) + 0.4,
    )
    axes = fig.subplots(len(settings), 1, squeeze=False, height_ratios=heights, sharex=True)
    for ax, (setting, panel) in zip(axes.flat, settings, strict=True):
        _panel(ax, panel[::-1])
        style.head(ax, [str(setting)], _WIDTH / 2)
    axes.flat[-1].set_xlabel(f"mean {metric.label} over datasets and conditions")
    return fig


def _panel(ax: Axes, panel: pd.DataFrame) -> None:
    for y, (_, r) in enumerate(panel.iterrows()):
        color = "#0072B2" if r["candidates"] == BASELINES else "#882255"
        width = r["tie_high"] - r["tie_low"]
        ax.barh(y, width, 0.5, r["tie_low"], color=color, alpha=0.3, lw=0)
        ax.plot([r["ci_low"], r["ci_high"]], [y, y], color=color, lw=0.9)
        ax.plot(r["test_score"], y, "o", color=color, ms=5)
        note = f"{r['test_score']:.4f}   {r['n_tied']} of {r['n_choices']} tied"
        note += f", {r['n_sae']} SAE" if r["n_sae"] else ""
        ax.annotate(
            note,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="#333333",
            annotation_clip=False,
        )
    style.name_rows(ax, range(len(panel)), panel["name"].tolist(), _NAMES, 9)
    ax.set_ylim(-0.6, len(panel) - 0.4)
    ax.grid(axis="x")
