"""What is measured, of the code that is imported: intervals, tests, bands and choices.

The campaign runs on any checkout (`measure.py --src`). Where one has not got a function under today's
name, what it did in its place is called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from actprobe import probes
from actprobe.probes import validation
from actprobe.probes.controls import bands, nulls
from actprobe.probes.methods import directions
from actprobe.results import compare, select, stats, tables

LEVEL = 0.95


def auc_interval(y: np.ndarray, scores: np.ndarray, cluster: np.ndarray | None = None) -> Any:
    """The interval of a test AUC over test rows."""
    if hasattr(probes, "auc_interval"):
        return probes.auc_interval(y, scores, cluster)
    return _bootstrap(tuple(y.tolist())).interval(scores)


_bootstraps: dict[tuple, Any] = {}


def _bootstrap(y: tuple) -> Any:
    if y not in _bootstraps:
        rule = {"resamples": 1000, "level": LEVEL, "seed": 0}
        _bootstraps.clear()
        _bootstraps[y] = probes.Bootstrap(np.array(y), rule)
    return _bootstraps[y]


def mean_interval(values: np.ndarray, within: tuple[float, float]) -> tuple[float, float]:
    """The interval of a mean over datasets."""
    if hasattr(stats, "mean_interval"):
        return stats.mean_interval(values, LEVEL, within)[1:]
    return stats.bootstrap_mean(values, LEVEL)[1:]


def paired(probe: np.ndarray, reference: np.ndarray) -> tuple[float, tuple[float, float]]:
    """p value and interval of a paired comparison over datasets."""
    pairs = pd.DataFrame({"dataset": range(len(probe)), "probe": probe, "reference": reference})
    found = compare.compare(pairs)
    return found["p"], (found["ci_low"], found["ci_high"])


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Holm-corrected comparisons of a tidy table."""
    return compare.comparison_table(table)


def direction(
    method: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray, folds: int
) -> directions.Direction:
    """A direction of contrastive-1, validated on whole groups."""
    parts = validation.folds(y, {"groups": "whole", "folds": folds}, 0, groups)
    return directions.find_direction(method, x, y, parts)


def null_directions(method: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray, k: int) -> Any:
    """Unit directions of the null of a method of contrastive-1."""
    made, _ = nulls.labels(y, None, groups, k, 0)
    return nulls.units(method, nulls.principal(directions.span(x)), made, 1.0)[0]


def band(null: np.ndarray) -> tuple[float, float]:
    """The null band of an AUROC."""
    return bands.band(null)


def best_told(table: pd.DataFrame) -> float:
    """The mean test AUC that the headline tells of the best probe by validation."""
    if hasattr(select, "best_by_validation"):
        chosen = select.best_by_validation(table)
        return float(chosen.groupby("dataset")["test_score"].mean().mean())
    means = tables.summarise(table)
    return float(means.loc[means["val_score"].idxmax(), "test_score"])


def shared(rows: int, labels: np.ndarray, components: np.ndarray) -> dict[str, Any]:
    """The arguments of `_Fits` that differ between checkouts: labelled rows."""
    from actprobe.probes.data import Labels

    known = {
        "row": np.arange(rows),
        "y": labels,
        "digest": np.array([f"{i}" for i in range(rows)], "S64"),
        "component": components,
        "group": components,
        "group_name": None,
        "split": None,
        "classes": ("no", "yes"),
        "n_rows": rows,
    }
    fields = Labels.__dataclass_fields__
    return {"labels": Labels(**{k: v for k, v in known.items() if k in fields})}
