"""False alarms: how often a band, a test or a "best of" claims something where there is nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import subjects

from actprobe.probes import fit as fits
from actprobe.probes import protocol, splits
from actprobe.probes.metrics.binary import aucs

METHODS = ("mean_difference", "logreg", "lda")
PLACE = {"experiment": "e", "protocol": "p", "setting": "normal", "condition": "", "model": "m"}
PLACE |= {"label": "", "kind": "binary", "metric": "auc"}
PLACE |= {"site": "resid_post.0", "position": "last", "source": "m/resid_post.0.last", "k": None}


LEADING, LATE = 0, 30  # components


def noise(seed: int, group_size: int, along: int = LEADING) -> tuple[np.ndarray, ...]:
    """200 training rows with a falling spectrum and labels without a signal, constant per group;
    validation rows whose labels follow one component."""
    n, d = 200, 40
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -0.7
    groups = np.repeat(np.arange(n // group_size), group_size)
    x = rng.standard_normal((n // group_size, d))[groups]
    if group_size > 1:
        x += 0.5 * rng.standard_normal((n, d))
    y = rng.permutation(np.arange(n // group_size) % 2)[groups]
    other = rng.standard_normal((100, d))
    labels = (other[:, along] + 0.5 * rng.standard_normal(100) > 0).astype(int)
    return x * spectrum, y, groups, other * spectrum, labels


def outside(method: str, group_size: int, along: int, trials: int = 300) -> tuple[float, int]:
    """A direction of noise labels outside the null band."""
    found = 0
    for seed in range(trials):
        x, y, groups, other, labels = noise(seed, group_size, along)
        unit = subjects.direction(method, x, y, groups, 2).unit
        null = subjects.null_directions(method, x, y, groups, 200)
        low, high = subjects.band(aucs(labels, null @ other.T))
        found += not low <= aucs(labels, unit[None] @ other.T)[0] <= high
    return found / trials, trials


def outside_at_chosen_layer(method: str, layers: int = 8, trials: int = 120) -> tuple[float, int]:
    """The same at the layer that held-out training rows choose among several."""
    found = 0
    for seed in range(trials):
        made = [noise(1000 * seed + layer, 1, LATE) for layer in range(layers)]
        y, labels = made[0][1], made[0][4]
        fitted = [subjects.direction(method, m[0], y, m[2], 5) for m in made]
        best = int(np.argmax([f.val_score for f in fitted]))
        x, _, groups, other, _ = made[best]
        null = subjects.null_directions(method, x, y, groups, 200)
        low, high = subjects.band(aucs(labels, null @ other.T))
        found += not low <= aucs(labels, fitted[best].unit[None] @ other.T)[0] <= high
    return found / trials, trials


def null_pairs(n: int, kind: str, trials: int = 1000) -> np.ndarray:
    """p values of two probes that are equally good on n datasets."""
    rng = np.random.default_rng([n, len(kind)])
    found = []
    for _ in range(trials):
        base = rng.beta(20, 1.5, n)
        error = rng.standard_t(3, (2, n)) if kind == "heavy tails" else rng.standard_normal((2, n))
        probe, reference = np.round(np.clip(base + 0.02 * error, 0, 1), 3)
        found.append(subjects.paired(probe, reference)[0])
    return np.array(found)


def significant(n: int, kind: str) -> tuple[float, int]:
    p = null_pairs(n, kind)
    return float((p < 0.05).mean()), len(p)


def family(n_probes: int, n: int, trials: int = 100) -> tuple[float, int]:
    """Any corrected p below 0.05 in a table of probes that are all as good as logreg."""
    rng = np.random.default_rng([n_probes, n])
    names = ["logreg", *(f"m{i}" for i in range(n_probes))]
    found = 0
    for _ in range(trials):
        base = rng.beta(20, 1.5, n)
        values = np.clip(base + 0.02 * rng.standard_normal((len(names), n)), 0, 1)
        rows = [
            {**PLACE, "dataset": f"d{i}", "method": m, "seed": 0, "val_score": 0.9,
             "test_score": values[j, i], "test_score_unseen": math.nan}
            for j, m in enumerate(names) for i in range(n)
        ]  # fmt: skip
        table = subjects.corrected(pd.DataFrame(rows).astype({"k": "Int64"}))
        own = table[~table["probe"].str.startswith("quiver")]
        found += bool((own["p_holm"] < 0.05).any())
    return found / trials, trials


@functools.cache
def null_table(name: str, n: int, cells: int, seed: int) -> pd.DataFrame:
    """Probes of labels without a signal: one dataset of n rows, `cells` layers, a protocol's seeds."""
    rng = np.random.default_rng([seed, n])
    recipe = protocol.recipe(protocol.load("actprobe-1"), "normal", "mean_difference")
    recipe["seeds"] = recipe["seeds"] if name == "actprobe-1" else [0]
    y = rng.permutation(np.arange(n) % 2)
    labels = subjects.shared(n, y, np.arange(n))["labels"]
    rows = []
    for cell in range(cells):
        x = rng.standard_normal((n, 12)).astype(np.float32)
        source = fits.Source(labels, x)
        for s in recipe["seeds"]:
            [row] = fits._condition(source, None, recipe, splits.Condition(), s)
            place = {**PLACE, "site": f"resid_post.{cell}", "source": f"m/resid_post.{cell}.last"}
            rows.append({**place, **fits.EMPTY, **row, "dataset": "d", "method": "mean_difference",
                         "seed": s})  # fmt: skip
    return pd.DataFrame(rows).astype({"k": "Int64"})


def best_of(name: str, n: int, cells: int, trials: int = 40) -> tuple[float, int]:
    """The mean test AUC that is told of the best of some layers, where all are chance."""
    told = [subjects.best_told(null_table(name, n, cells, seed)) for seed in range(trials)]
    return float(np.mean(told)), trials


@functools.cache
def shuffled_rows(grouped: bool, trials: int = 20) -> list[dict[str, Any]]:
    """control_shuffled_labels on rows that tell their labels, 8 for training."""
    recipe = protocol.recipe(protocol.load("actprobe-1"), "scarcity", "control_shuffled_labels")
    rows = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        component = np.repeat(np.arange(40), 3) if grouped else np.arange(120)
        y = rng.permutation(np.arange(component.max() + 1) % 2)[component]
        x = rng.standard_normal((120, 8)).astype(np.float32)
        x[:, 0] += 2 * y
        labels = subjects.shared(120, y, component)["labels"]
        condition = splits.Condition("8", n_train=8)
        for s in recipe["seeds"]:
            rows += fits._condition(fits.Source(labels, x), None, recipe, condition, s)
    return rows


def shuffled(what: str, grouped: bool) -> tuple[float, int]:
    """The mean validation or test AUC of these rows, or the share of fits that have the former."""
    column = what.split()[-1].replace("_auc", "_score")
    rows = [r for r in shuffled_rows(grouped) if not r.get("reason")]
    found = np.array([r[column] for r in rows], float)
    if what == "has val_auc":
        return float(np.mean(~np.isnan(found))), len(found)
    return float(np.nanmean(found)), int((~np.isnan(found)).sum())


def cases() -> Iterator[tuple[str, str, float, Callable[[], Any]]]:
    """(part, case, nominal value, measurement)."""
    for method in METHODS:
        for size, along in ((1, LEADING), (1, LATE), (5, LEADING), (5, LATE)):
            name = (
                f"{method}, labels along {'the first' if along == LEADING else 'a late'} component"
            )
            name += f", groups of {size}" if size > 1 else ""
            yield "null band, contrastive", name, 0.05, lambda a=(method, size, along): outside(*a)
    for method in METHODS:
        part = "null band at the chosen layer"
        yield part, method, 0.05, lambda m=method: outside_at_chosen_layer(m)
    for n in (5, 9, 15, 30, 113):
        for kind in ("normal", "heavy tails"):
            yield "paired comparison", f"{kind}, n = {n}", 0.05, lambda a=(n, kind): significant(*a)
    for n_probes, n in ((4, 9), (4, 30), (12, 30), (22, 9)):
        name = f"{n_probes} probes, n = {n}"
        yield "Holm family", name, 0.05, lambda a=(n_probes, n): family(*a)
    for name in ("one seed", "actprobe-1"):
        for n, cells in ((200, 3), (200, 12), (600, 12)):
            case = f"{name}, {n} rows, {cells} layers"
            yield "best by validation", case, 0.5, lambda a=(name, n, cells): best_of(*a)
    for grouped in (False, True):
        for what, nominal in (("has val_auc", 1.0), ("val_auc", 0.5), ("test_auc", 0.5)):
            name = f"{what}{', groups of 3' if grouped else ''}"
            yield "control_shuffled_labels", name, nominal, lambda a=(what, grouped): shuffled(*a)
