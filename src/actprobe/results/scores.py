"""What the numbers of a table mean: its metrics, as `probes.metrics` has them registered.

`val_score` and `test_score` of a row are values of the metric that its column `metric` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from actprobe.base.errors import ActprobeError
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics import Metric, all_metrics, main_metric

CHANCE = {"auc": 0.5}  # of scores that know nothing of the labels, whatever the classes
Range = tuple[float, float]


def known(name: str, where: str = "the table") -> Metric:
    """The registered metric of this name; raises ActprobeError, saying what to do, for another."""
    metrics = all_metrics()
    if name not in metrics:
        raise ActprobeError(
            f"{where}: metric {name!r} is not registered; registered are {', '.join(metrics)}. If a "
            "file of yours registers it, name the file under `extensions:` of the config"
        )
    return metrics[name]


def metric_of(rows: pd.DataFrame) -> Metric:
    """The one metric of these rows' scores; of no rows that of two classes."""
    names = rows["metric"].unique()
    if len(names) > 1:
        raise ValueError(f"scores of several metrics: {', '.join(names)}")
    return known(str(names[0])) if len(names) else main_metric(BINARY)


def in_order(names: Iterable[str]) -> list[str]:
    """These metrics in the order of their registration."""
    wanted = set(names)
    return [*(n for n in all_metrics() if n in wanted), *sorted(wanted - set(all_metrics()))]


def goodness(values: Any, metric: Metric) -> Any:
    """Values of a metric, turned so that more is better."""
    return values if metric.higher else -values


def span(metric: Metric) -> Range:
    """Between which values a metric lies."""
    return metric.low, metric.high


def differences(metric: Metric) -> Range:
    """Between which values the difference of two values of a metric lies."""
    return metric.low - metric.high, metric.high - metric.low


def short(metric: Metric) -> str:
    """A metric's label without the word for the rows: "AUC"."""
    return metric.label.removeprefix("test ")


def upper(text: str) -> str:
    """A text with a capital first letter: the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def any_of(texts: Iterable[str]) -> str:
    """ "test AUC", "test AUC or R²", "a, b or c"; of none nothing."""
    *first, last = dict.fromkeys(texts) or [""]
    return f"{', '.join(first)} or {last}" if first else last


def chance(metric: Metric, rows: pd.DataFrame) -> float:
    """The value of a metric for predictions that know nothing, NaN where that is not known.

    Of an AUC 0.5; of a metric around 0, as R² and correlations, 0; of the accuracy the mean of the
    column `chance` over the datasets of these rows.
    """
    if metric.name in CHANCE:
        return CHANCE[metric.name]
    if metric.low < 0 < metric.high:
        return 0.0
    if not own_chance(metric):
        return math.nan
    values = rows.groupby(["dataset", "label"])["chance"].mean()
    return float(values.mean()) if values.notna().any() else math.nan


def own_chance(metric: Metric) -> bool:
    """Whether each dataset has a chance level of its own, in the column `chance`."""
    return metric.name == "acc"
