"""What repeated texts do to the numbers."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.figures import style
from actprobe.results.stats import CONFIDENCE
from actprobe.results.views import featured, label_order, place_name

NAMED, VISIBLE = 5, 0.02  # so many datasets are named, and only where there is a difference


def leakage(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """By how much the test AUC falls without leaked test rows, against their share.

    A test row is leaked when its exact text also stands in a training row.
    """
    title = "Leaked test rows"
    rows = featured(table)
    rows = rows[rows["leak_fraction"].notna()] if len(rows) else rows
    if rows.empty:
        return style.nothing(
            title, "The table does not say which test texts stand in training rows."
        )
    rows = rows.assign(gain=rows["test_auc"] - rows["test_auc_unseen"])
    labels = label_order(rows["label"])
    fig = style.figure(
        title,
        f"{place_name(rows.iloc[0])}. Every point is a dataset and method.\n"
        "Above zero: the test AUC with leaked rows is higher than without them.",
        6.8,
        3.8,
        labels,
    )
    ax = fig.subplots()
    ax.axhline(0, color="#555555", lw=0.8)
    for label, (color, marker) in style.looks(labels).items():
        mine = rows[rows["label"] == label]
        ax.plot(
            mine["leak_fraction"], mine["gain"], marker, color=color, ms=4.5, alpha=0.8, label=label
        )
    tops = rows.loc[rows.groupby("dataset")["gain"].idxmax().dropna()]
    for _, row in tops[tops["gain"] > VISIBLE].nlargest(NAMED, "gain", keep="first").iterrows():
        right = row["leak_fraction"] > rows["leak_fraction"].max() / 2
        ax.annotate(
            row["dataset"],
            (row["leak_fraction"], row["gain"]),
            xytext=(-6 if right else 6, 5),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7.5,
            color="#333333",
        )
    ax.grid()
    ax.margins(y=0.15)
    ax.set_xlim(left=-0.02 * max(rows["leak_fraction"].max(), 0.01))
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel("share of test rows whose text also stands in a training row")
    ax.set_ylabel("test AUC − test AUC without them")
    style.legend(fig, labels)
    return fig
