"""Curves over the conditions of a setting, and the figure of out-of-distribution tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actprobe.probes.metrics import Metric
from actprobe.report.figures import style
from actprobe.results import scores
from actprobe.results.select import SLICE, quiver
from actprobe.results.stats import CONFIDENCE, FEWEST, mean_interval
from actprobe.results.tables import TASK
from actprobe.results.views import (
    baseline,
    count,
    differing,
    named,
    over_datasets,
    per_dataset,
    probe_order,
    tasks,
)

Lines = dict[str, pd.DataFrame]  # method, or SAE and method -> test score [dataset, condition]
Panel = tuple[list[str], Lines, int, int]  # place, lines, datasets left, and of how many
_BANDS = 4  # lines that can all have a band


def scarcity(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test score by number of training rows."""
    return _curves(table, "scarcity", "training rows", "Few training rows", confidence)


def imbalance(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test score by the share of positives in training and test rows."""
    words = "share of positives in training and test rows"
    return _curves(table, "imbalance", words, "Unequal classes", confidence)


def label_noise(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Mean test score by the share of flipped training labels."""
    words = "share of flipped training labels"
    return _curves(table, "label_noise", words, "Wrong training labels", confidence)


def _curves(table: pd.DataFrame, setting: str, axis: str, title: str, confidence: float) -> Figure:
    """A line per method over the conditions, a panel per place.

    A panel shows the same datasets at every point: those for which every method has a number
    under every shown condition. SAE probes are one line per SAE and method, with k chosen by
    validation.
    """
    metric = scores.metric_of(table)
    rows = table[(table["setting"] == setting) & table["test_score"].notna()]
    rows = rows.assign(x=pd.to_numeric(rows["condition"], errors="coerce"))
    rows = rows[rows["x"].notna()]
    if rows.empty:
        return style.nothing(title, f"The table has no numbers in the setting {setting}.")
    told = ["model", "site", "position", *differing(rows, ["protocol", "experiment"])]
    groups, more = style.first(rows.groupby(SLICE, sort=False), style.PANELS, "places")
    panels = [_of_place(part, told) for _, part in groups]
    every = _in_order({name for _, lines, *_ in panels for name in lines})
    names, hidden = style.first(every, style.LABELS, "methods")
    across = min(2, len(panels))
    of_whom = "bands" if len(names) <= _BANDS else f"band of {names[0]}"
    most = max(left for _, _, left, _ in panels)
    over = over_datasets(most, confidence)
    bands = f"{over} ({of_whom})" if most >= FEWEST else over
    protocol = "" if "protocol" in told else f"{rows['protocol'].iloc[0]}. "
    width = 4.4 * across + 2.8 if across > 1 else 7.4
    fig = style.figure(
        title,
        f"{protocol}Means over the datasets with a number for every method and condition, {bands}."
        f"{more}{hidden}{style.cut_off(rows['test_score'], metric)}\n"
        "Conditions that few datasets have are left out. SAE probes: k chosen by validation.",
        width,
        3.9 * -(-len(panels) // across),
        names,
    )
    axes = style.grid(fig, len(panels), across)
    for ax, (place, lines, left, of) in zip(axes, panels, strict=True):
        _draw(ax, {n: lines[n] for n in names if n in lines}, names, metric, confidence)
        style.head(ax, [*place[:-1], f"{place[-1]}: {left:,} of {count(of, 'dataset')}"],
                   (width - 0.8) / across - 0.3)  # fmt: skip
        ax.grid(axis="y")
        ax.set_xlabel(axis)
        if setting == "scarcity":
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel(metric.label)
    style.cut(axes[0], "y", metric)
    for ax in axes:
        style.reference(ax, "y", scores.chance(metric, rows))
    style.legend(fig, names)
    return fig


def _of_place(rows: pd.DataFrame, told: list[str]) -> Panel:
    lines, left = _complete(_lines(rows))
    return [str(rows[c].iloc[0]) for c in told], lines, left, rows["dataset"].nunique()


def _draw(ax: Axes, lines: Lines, names: list[str], metric: Metric, confidence: float) -> None:
    looks = style.looks(names)
    for name, values in lines.items():
        if values.empty:  # no dataset is left: an axis that has no data has no logarithm
            continue
        points = [mean_interval(v, confidence, scores.span(metric)) for _, v in values.items()]
        mean, low, high = np.array(points, dtype=float).reshape(-1, 3).T
        color, marker = looks[name]
        x = values.columns.to_numpy(dtype=float)
        if name == names[0] or len(names) <= _BANDS:
            ax.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
        dashed = (0, (4, 2)) if ", " in name else "-"
        ax.plot(x, mean, ls=dashed, marker=marker, color=color, lw=1.4, ms=3.8, label=name)


def _lines(rows: pd.DataFrame) -> Lines:
    """Test score of every line [task, condition]; of many SAE probes the best by validation.

    The names of SAE probes hold a comma, those of methods do not.
    """
    base, sparse = named(rows[baseline(rows)]), rows[~baseline(rows)]
    found = {str(m): r for m, r in base.groupby("probe", sort=False)}
    for (source, method), mine in sparse.groupby(["source", "method"], sort=False):
        chosen = quiver(mine)
        if len(chosen):
            found[f"{source}, {method}"] = chosen
    if len(found) - base["probe"].nunique() > style.MANY:
        metric = scores.metric_of(rows)
        val = {n: per_dataset(r, "val_score").mean() for n, r in found.items()}
        saes = (n for n in found if ", " in n)
        best = sorted(saes, key=lambda n: -float(scores.goodness(val[n], metric)))
        found = {n: r for n, r in found.items() if ", " not in n or n in best[: style.MANY]}
    return {
        name: r.pivot_table(index=TASK, columns="x", values="test_score", aggfunc="mean")
        for name, r in found.items()
    }


def _complete(lines: Lines) -> tuple[Lines, int]:
    """The lines cut to the same datasets and conditions, and how many datasets these are; the labels
    of a dataset are averaged then.

    Conditions that few datasets have (for all lines; less than half of what the best condition has)
    go first, so that a size that is too large for most datasets costs a point and not the curve.
    """
    every = sorted(set().union(*(v.columns for v in lines.values())))
    lines = {name: v.reindex(columns=every) for name, v in lines.items()}
    if not every:
        return lines, 0
    known = pd.concat({name: v.notna() for name, v in lines.items()}).groupby(level=TASK)
    there = known.all() & (known.size() == len(lines)).to_numpy()[:, None]
    columns = there.columns[there.sum() >= there.sum().max() / 2]
    shared = there.index[there[columns].all(axis=1)]
    kept = {n: v.loc[shared, columns].groupby(level="dataset").mean() for n, v in lines.items()}
    return kept, shared.get_level_values("dataset").nunique()


def _in_order(names: set[str]) -> list[str]:
    base = probe_order(pd.Series([n for n in names if ", " not in n], dtype="str"))
    return [*base, *sorted(n for n in names if ", " in n)]


_PROBE = ["experiment", "protocol", "model", "site", "position", "source", "probe"]


def ood(table: pd.DataFrame, confidence: float = CONFIDENCE) -> Figure:
    """Test score on out-of-distribution texts by dataset, beside the normal setting where known.

    Means over seeds.
    """
    title = "Out-of-distribution tests"
    metric = scores.metric_of(table)
    rows = named(table[(table["setting"] == "ood") & table["test_score"].notna()])
    if rows.empty:
        return style.nothing(title, "The table has no numbers in the setting ood.")
    told = differing(rows, _PROBE[:-2])
    shared = [str(rows[c].iloc[0]) for c in _PROBE[1:-2] if c not in told]
    level = scores.chance(metric, rows)
    rows = rows.assign(task=tasks(rows))
    rows = rows.groupby(["task", *_PROBE], sort=False)["test_score"].mean().reset_index()
    rows["name"] = [", ".join([*_probe_name(r), *r[told]]) for _, r in rows.iterrows()]
    usual = named(table[(table["setting"] == "normal") & table["test_score"].notna()])
    usual = usual.assign(task=tasks(usual))
    normal = usual.groupby(["task", *_PROBE], sort=False)["test_score"].mean()
    every = rows.groupby("task")["test_score"].mean().sort_values(kind="stable").index.tolist()
    order, more = style.first(every, style.ROWS, "datasets, those with the lowest mean")
    by_name = sorted(rows["name"].unique(), key=lambda n: (", " in n, n))
    names, hidden = style.first(by_name, style.LABELS, "probes")
    fig = style.figure(
        title,
        f"{', '.join(filter(None, shared))}. Filled: trained on the dataset, tested on its "
        "out-of-distribution set.\n"
        f"Hollow: the same probe in the setting normal, where the table has it.{more}{hidden}"
        f"{style.cut_off(rows['test_score'], metric)}",
        7.4,
        min(max(0.34, 0.05 * len(names)), 0.8) * len(order) + 0.9,
        names,
    )
    ax = fig.subplots()
    _ood(ax, rows[rows["task"].isin(order)], normal, names, order)
    for at in range(0, len(order), 2):
        ax.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    if not np.isnan(level):
        ax.axvline(level, color="#888888", lw=0.8, ls=(0, (4, 3)))
    style.cut(ax, "x", metric)
    style.name_rows(ax, range(len(order)), order, 2.9, 9)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.grid(axis="x")
    ax.set_xlabel(metric.label)
    style.legend(fig, names)
    return fig


def _ood(
    ax: Axes, rows: pd.DataFrame, normal: pd.Series, names: list[str], order: list[str]
) -> None:
    for i, (name, (color, marker)) in enumerate(style.looks(names).items()):
        mine = rows[rows["name"] == name]
        shift = 0.5 * (0.5 - (i + 0.5) / len(names))
        y = [order.index(d) + shift for d in mine["task"]]
        there = mine.set_index(["task", *_PROBE]).index
        inside = normal.reindex(there).to_numpy()
        ax.hlines(y, mine["test_score"], inside, color=color, lw=0.7, alpha=0.6)
        ax.plot(inside, y, marker, color=color, mfc="white", ms=5)
        ax.plot(mine["test_score"], y, marker, color=color, ms=5.5, label=name)


def _probe_name(row: pd.Series) -> list[str]:
    own = row["source"] == f"{row['model']}/{row['site']}.{row['position']}"
    return [str(row["probe"])] if own else [str(row["source"]), str(row["probe"])]
