"""What repeated texts do to the numbers."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from actprobe.results.figures import style, words
from actprobe.results.stats import CONFIDENCE
from actprobe.results.views import featured, frame, label_order, place_name

NAMED, VISIBLE = 5, 0.02  # so many datasets are named, and only where there is a difference
_WIDTH, _NAMES = 6.8, 2.4  # inches


def leakage(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """By how much the test AUC falls without leaked test rows, against their share.

    A test row is leaked when its exact text also stands in a training row. A dataset all of whose
    test rows are leaked has no AUC without them, and no point.
    """
    title = "Leaked test rows"
    rows = featured(table.assign(gain=table["test_auc"] - table["test_auc_unseen"]))
    rows = rows[rows["leak_fraction"].notna()] if len(rows) else rows
    if rows.empty:
        return style.nothing(
            title, "The table does not say which test texts stand in training rows."
        )
    place = f"{place_name(rows.iloc[0])}; {frame(rows.iloc[0])}"
    known = rows[rows["gain"].notna()]
    if known.empty:
        return style.nothing(
            title,
            f"{place}. No dataset has a test AUC without leaked test rows: too few rows, or rows of "
            "one class, are left.",
        )
    without = rows["dataset"].nunique() - known["dataset"].nunique()
    lost = f" {without} without an AUC on the other rows are not shown." if without else ""
    labels, hidden = style.first(label_order(known["label"]), style.LABELS, "methods")
    fig = style.figure(
        title,
        f"{place}. Every point is a dataset and method.{hidden}{lost}\n"
        "Above zero: the test AUC with leaked rows is higher than without them."
        f"{_largest(known)}",
        _WIDTH,
        3.8,
        labels,
    )
    ax = fig.subplots()
    ax.axhline(0, color="#555555", lw=0.8)
    for label, (color, marker) in style.looks(labels).items():
        mine = known[known["label"] == label]
        ax.plot(
            mine["leak_fraction"], mine["gain"], marker, color=color, ms=4.5, alpha=0.8, label=label
        )
    ax.grid()
    ax.margins(y=0.15)
    ax.set_xlim(left=-0.02 * max(known["leak_fraction"].max(), 0.01))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("share of test rows whose text also stands in a training row")
    ax.set_ylabel("test AUC − test AUC without them")
    style.legend(fig, labels)
    return fig


def _largest(rows: pd.DataFrame) -> str:
    """The datasets with the largest difference, as far as one is to be seen."""
    tops = rows.sort_values("gain", ascending=False, kind="stable").drop_duplicates("dataset")
    tops = tops[tops["gain"] > VISIBLE].head(NAMED)
    names = words.fitted(tops["dataset"], _NAMES)
    told = [f"{names[d]} {g:+.3f}" for d, g in zip(tops["dataset"], tops["gain"], strict=True)]
    return f"\nThe largest: {', '.join(told)}." if told else ""
