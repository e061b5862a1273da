"""What repeated texts do to the numbers."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from actprobe.report.figures import style, words
from actprobe.results import scores
from actprobe.results.stats import CONFIDENCE
from actprobe.results.views import featured, place_name, probe_order

NAMED, VISIBLE = 5, 0.02  # so many datasets are named, and only where there is a difference
_WIDTH, _NAMES = 6.8, 2.4  # inches


def leakage(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """By how much the test score falls without leaked test rows, against their share.

    A test row is leaked when its exact text also appears in a training row. A dataset all of whose
    test rows are leaked has no score without them, and no point.
    """
    title = "Leaked test rows"
    metric = scores.metric_of(table)
    gain = scores.goodness(table["test_score"] - table["test_score_unseen"], metric)
    rows = featured(table.assign(gain=gain))
    rows = rows[rows["leak_fraction"].notna()] if len(rows) else rows
    if rows.empty:
        return style.nothing(
            title, "The table does not say which test texts appear in training rows."
        )
    place = f"{place_name(rows.iloc[0])}; {rows['frame'].iloc[0]}"
    if (rows["leak_fraction"] == 0).all():
        return style.nothing(title, f"{place}. No test text also appears in the training rows.")
    known = rows[rows["gain"].notna()]
    if known.empty:
        return style.nothing(
            title,
            f"{place}. No dataset has a {metric.label} without leaked test rows: too few rows, or rows "
            "of one class, are left.",
        )
    without = rows["task"].nunique() - known["task"].nunique()
    lost = ""
    if without:
        lost = f" {without} without a number on the other rows are not shown."
    labels, hidden = style.first(probe_order(known["probe"]), style.LABELS, "methods")
    better = "higher" if metric.higher else "lower"
    fig = style.figure(
        title,
        f"{place}. Every point is a dataset and method.{hidden}{lost}\n"
        f"Above zero: the {metric.label} with leaked rows is {better} than without them."
        f"{_largest(known)}",
        _WIDTH,
        3.8,
        labels,
    )
    ax = fig.subplots()
    ax.axhline(0, color="#555555", lw=0.8)
    for label, (color, marker) in style.looks(labels).items():
        mine = known[known["probe"] == label]
        ax.plot(
            mine["leak_fraction"], mine["gain"], marker, color=color, ms=4.5, alpha=0.8, label=label
        )
    ax.grid()
    ax.margins(y=0.15)
    ax.set_xlim(left=-0.02 * max(known["leak_fraction"].max(), 0.01))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("share of test rows whose text also appears in a training row")
    sides = [metric.label, f"{metric.label} without them"]
    ax.set_ylabel(" − ".join(sides if metric.higher else sides[::-1]))
    style.legend(fig, labels)
    return fig


def _largest(rows: pd.DataFrame) -> str:
    """The datasets with the largest difference, as far as one is to be seen."""
    tops = rows.sort_values("gain", ascending=False, kind="stable").drop_duplicates("task")
    tops = tops[tops["gain"] > VISIBLE].head(NAMED)
    names = words.fitted(tops["task"], _NAMES)
    told = [f"{names[d]} {g:+.3f}" for d, g in zip(tops["task"], tops["gain"], strict=True)]
    return f"\nThe largest: {', '.join(told)}." if told else ""
