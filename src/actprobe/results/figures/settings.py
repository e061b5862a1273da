"""Curves over the conditions of a setting, and the figure of out-of-distribution tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.figures import style
from actprobe.results.select import SLICE, quiver
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.views import baseline, count, label_order, labelled, place_name


def scarcity(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC by number of training rows."""
    return _curves(table, "scarcity", "training rows", "Few training rows", confidence)


def imbalance(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC by the share of positives in training and test rows."""
    words = "share of positives in training and test rows"
    return _curves(table, "imbalance", words, "Unequal classes", confidence)


def label_noise(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test AUC by the share of flipped training labels."""
    words = "share of flipped training labels"
    return _curves(table, "label_noise", words, "Wrong training labels", confidence)


def _curves(table: pd.DataFrame, setting: str, axis: str, title: str, confidence: float) -> Figure:
    """A line per method over the conditions, a panel per place.

    A panel shows the same datasets at every point: those for which every method has a number
    under every shown condition. SAE probes are one line per SAE and method, with k chosen by
    validation.
    """
    rows = table[(table["setting"] == setting) & table["test_auc"].notna()]
    if rows.empty:
        return style.nothing(title, f"The table has no numbers in the setting {setting}.")
    panels = {}
    told = ["model", "site", "position", *_several(rows)]
    for _, part in rows.groupby(SLICE, sort=False):
        lines, left = _complete(_lines(part))
        place = ", ".join(str(part[c].iloc[0]) for c in told)
        panels[place] = (lines, left, part["dataset"].nunique())
    names = _in_order({name for lines, *_ in panels.values() for name in lines})
    across = min(2, len(panels))
    bands = "bands" if len(names) <= 4 else f"band of {names[0]}"
    width = 4.4 * across + 2.8 if across > 1 else 7.4
    fig = style.figure(
        title,
        f"Means over the datasets with a number for every method and condition; {bands}: "
        f"{confidence:.0%} interval over datasets.\n"
        "Conditions that few datasets have are left out. SAE probes: k chosen by validation.",
        width,
        3.9 * -(-len(panels) // across),
        names,
    )
    looks = style.looks(names)
    axes = style.grid(fig, len(panels), across)
    for ax, (place, (lines, left, of)) in zip(axes, panels.items(), strict=True):
        for name, values in lines.items():
            points = [mean_interval(v, confidence) for _, v in values.items()]
            mean, low, high = np.array(points, dtype=float).T
            color, marker = looks[name]
            x = values.columns.to_numpy(dtype=float)
            if name == names[0] or len(names) <= 4:
                ax.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
            dashed = (0, (4, 2)) if ", " in name else "-"
            ax.plot(x, mean, ls=dashed, marker=marker, color=color, lw=1.4, ms=3.8, label=name)
        ax.set_title(f"{place}: {left} of {count(of, 'dataset')}")
        ax.grid(axis="y")
        ax.set_xlabel(axis)
        if setting == "scarcity":
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("test AUC")
    style.legend(fig, names)
    return fig


def _lines(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per method (baselines) or SAE and method: test AUC [dataset, condition]."""
    base, sparse = labelled(rows[baseline(rows)]), rows[~baseline(rows)]
    found = {str(m): r for m, r in base.groupby("label", sort=False)}
    for (source, method), mine in sparse.groupby(["source", "method"], sort=False):
        found[f"{source}, {method}"] = quiver(mine)
    if len(found) - base["label"].nunique() > style.MANY:
        best = sorted(
            (n for n in found if ", " in n), key=lambda n: -float(found[n]["val_auc"].mean())
        )
        found = {n: r for n, r in found.items() if ", " not in n or n in best[: style.MANY]}
    numeric = {n: r.assign(x=r["condition"].astype(float)) for n, r in found.items()}
    return {
        name: r.pivot_table(index="dataset", columns="x", values="test_auc", aggfunc="mean")
        for name, r in numeric.items()
    }


def _complete(lines: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], int]:
    """The lines cut to the same datasets and conditions, and how many datasets these are.

    Conditions that few datasets have (for all lines; less than half of what the best condition has)
    go first, so that a size that is too large for most datasets costs a point and not the curve.
    """
    every = sorted(set().union(*(v.columns for v in lines.values())))
    lines = {name: v.reindex(columns=every) for name, v in lines.items()}
    known = pd.concat({name: v.notna() for name, v in lines.items()}).groupby(level=1)
    there = known.all() & (known.size() == len(lines)).to_numpy()[:, None]
    columns = there.columns[there.sum() >= there.sum().max() / 2]
    shared = there.index[there[columns].all(axis=1)]
    return {name: v.loc[shared, columns] for name, v in lines.items()}, len(shared)


def _in_order(names: set[str]) -> list[str]:
    base = label_order(pd.Series([n for n in names if ", " not in n], dtype="str"))
    return [*base, *sorted(n for n in names if ", " in n)]


def ood(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test AUC on out-of-distribution texts by dataset, beside the normal setting where known.

    Means over seeds.
    """
    title = "Out-of-distribution tests"
    rows = labelled(table[(table["setting"] == "ood") & table["test_auc"].notna()])
    if rows.empty:
        return style.nothing(title, "The table has no numbers in the setting ood.")
    probe = ["experiment", "protocol", "model", "site", "position", "source", "label"]
    told = _several(rows)
    rows = rows.groupby(["dataset", *probe], sort=False)["test_auc"].mean().reset_index()
    rows["name"] = [", ".join([_probe_name(r), *r[told]]) for _, r in rows.iterrows()]
    usual = labelled(table[(table["setting"] == "normal") & table["test_auc"].notna()])
    normal = usual.groupby(["dataset", *probe], sort=False)["test_auc"].mean()
    order = rows.groupby("dataset")["test_auc"].mean().sort_values(kind="stable").index.tolist()
    labels = sorted(rows["name"].unique(), key=lambda n: (", " in n, n))
    width = 7.4
    fig = style.figure(
        title,
        "Filled: trained on the dataset, tested on its out-of-distribution set.\n"
        "Hollow: the same probe in the setting normal, where the table has it.",
        width,
        0.34 * len(order) + 0.9,
        labels,
    )
    ax = fig.subplots()
    for i, (name, (color, marker)) in enumerate(style.looks(labels).items()):
        mine = rows[rows["name"] == name]
        shift = 0.5 * (0.5 - (i + 0.5) / len(labels))
        y = [order.index(d) + shift for d in mine["dataset"]]
        there = mine.set_index(["dataset", *probe]).index
        inside = normal.reindex(there).to_numpy()
        ax.hlines(y, mine["test_auc"], inside, color=color, lw=0.7, alpha=0.6)
        ax.plot(inside, y, marker, color=color, mfc="white", ms=5)
        ax.plot(mine["test_auc"], y, marker, color=color, ms=5.5, label=name)
    for at in range(0, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    ax.axvline(0.5, color="#888888", lw=0.8, ls=(0, (4, 3)))
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("test AUC")
    style.legend(fig, labels)
    return fig


def _several(rows: pd.DataFrame) -> list[str]:
    """Which of protocol and experiment have to be named to tell rows apart."""
    return [c for c in ("protocol", "experiment") if rows[c].nunique() > 1]


def _probe_name(row: pd.Series) -> str:
    own = row["source"] == f"{row['model']}/{row['site']}.{row['position']}"
    return str(row["label"]) if own else f"{place_name(row)}, {row['label']}"
