"""The quiver of arrows: what choosing by validation gives, and how much of it is ties."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.figures import style
from actprobe.results.select import BASELINES, SLICE, TIES, quiver_table
from actprobe.results.stats import CONFIDENCE


def quiver(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC of the method chosen by validation, with the band over all tie orders."""
    title = "Choosing the method by validation (quiver of arrows)"
    rows = quiver_table(table, confidence)
    if rows.empty:
        return style.nothing(title, "No place has more than one method to choose from.")
    panels = list(rows.groupby("setting", sort=False))
    settings = sorted(panels, key=lambda p: p[0] != "normal")
    heights = [0.36 * len(p) + 0.35 for _, p in settings]
    subtitle = (
        "Thick bars: the band over all tie orders; thin lines: "
        f"{confidence:.0%} interval over datasets.\n"
        f"Points: the tie rule “{TIES['methods']}”."
    )
    fig = style.figure(title, subtitle, 9.0, sum(heights) + 0.4)
    axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)
    base, sparse = "#0072B2", "#882255"
    for ax, (setting, panel) in zip(axes.flat, settings, strict=True):
        for y, (_, r) in enumerate(panel[::-1].iterrows()):
            color = base if r["candidates"] == BASELINES else sparse
            ax.barh(
                y, r["tie_high"] - r["tie_low"], 0.5, r["tie_low"], color=color, alpha=0.3, lw=0
            )
            ax.plot([r["ci_low"], r["ci_high"]], [y, y], color=color, lw=0.9)
            ax.plot(r["test_auc"], y, "o", color=color, ms=5)
            note = f"{r['test_auc']:.4f}   {r['n_tied']} of {r['n_choices']} tied"
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
        ax.set_yticks(range(len(panel)), [_name(r, rows) for _, r in panel[::-1].iterrows()])
        ax.set_ylim(-0.6, len(panel) - 0.4)
        ax.tick_params(axis="y", length=0)
        ax.set_title(setting)
        ax.grid(axis="x")
    axes.flat[-1].set_xlabel("mean test AUC over datasets and conditions")
    return fig


def _name(row: pd.Series, rows: pd.DataFrame) -> str:
    """Candidates, with the parts of the place in which the rows differ."""
    differing = [c for c in SLICE if c not in ("setting", "experiment") and rows[c].nunique() > 1]
    return ", ".join([*(str(row[c]) for c in differing), row["candidates"]])
