"""Coverage of intervals: how often each holds the value that it is about."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import subjects
from scipy.stats import binom, norm

from actprobe.probes.intervals import wilson
from actprobe.results.seeds import interval

Case = tuple[str, Callable[[], tuple[float, int]]]  # name; (share of hits, number of trials)

SIZES = ((5, 5), (10, 10), (20, 20), (50, 50), (200, 200), (5, 95), (15, 135))
AUCS = (0.5, 0.7, 0.85, 0.95, 0.99)
DATASETS = (2, 3, 5, 9, 15, 20, 30)


def covered(bounds: np.ndarray, truth: float) -> tuple[float, int]:
    """Share of the intervals [n, 2] with two ends that hold the truth; no ends are no interval."""
    known = bounds[~np.isnan(bounds).any(axis=1)]
    hits = (known[:, 0] <= truth) & (truth <= known[:, 1])
    return (float(hits.mean()) if len(known) else math.nan), len(known)


def auc_of_rows(m: int, n: int, auc: float, sd: float, trials: int = 600) -> tuple[float, int]:
    """Normal scores of m positive rows (standard deviation sd) and n negative ones."""
    rng = np.random.default_rng([m, n, round(1000 * auc), round(10 * sd)])
    y = np.repeat([1, 0], [m, n])
    shift = norm.ppf(auc) * math.sqrt(1 + sd**2)
    spread = np.where(y == 1, sd, 1.0)
    found = [
        subjects.auc_interval(y, shift * y + spread * rng.standard_normal(m + n))
        for _ in range(trials)
    ]
    return covered(np.array(found), auc)


def auc_of_clusters(kind: str, auc: float, trials: int = 600) -> tuple[float, int]:
    """200 rows in 40 texts of one label with five rows each, or in 100 pairs of both labels."""
    rng = np.random.default_rng(round(1000 * auc))
    shift = norm.ppf(auc) * math.sqrt(2)
    if kind == "texts":
        cluster = np.repeat(np.arange(40), 5)
        y = cluster % 2
    else:
        cluster = np.repeat(np.arange(100), 2)
        y = np.tile([0, 1], 100)
    share = (
        0.95 if kind == "texts" else 0.5
    )  # of the variance, that rows of a cluster have in common
    found = []
    for _ in range(trials):
        common = rng.standard_normal(cluster.max() + 1)[cluster]
        noise = math.sqrt(share) * common + math.sqrt(1 - share) * rng.standard_normal(200)
        found.append(subjects.auc_interval(y, shift * y + noise, cluster))
    return covered(np.array(found), auc)


def mean_of_datasets(population: str, n: int, trials: int = 1500) -> tuple[float, int]:
    """n datasets from a population of AUCs or of differences."""
    rng = np.random.default_rng([n, len(population)])
    draw, truth, within = POPULATIONS[population]()
    found = [subjects.mean_interval(draw(rng, n), within) for _ in range(trials)]
    return covered(np.array(found), truth)


def _beta(a: float, b: float) -> Callable:
    return lambda: (lambda rng, n: rng.beta(a, b, n), a / (a + b), (0.0, 1.0))


def _published(column: str) -> tuple:
    """The test AUCs of 113 datasets (gemma-2-9b, layer 20), or their difference to logreg's."""
    folder = Path(os.environ["ACTPROBE_PUBLISHED"]) / "results/baseline_probes_gemma-2-9b"
    rows = pd.read_csv(folder / "normal_settings/layer20_results.csv")
    wide = rows.pivot(index="dataset", columns="method", values="test_auc")
    values = (wide[column] - (0 if column == "logreg" else wide["logreg"])).to_numpy()
    within = (0.0, 1.0) if column == "logreg" else (-1.0, 1.0)
    return lambda rng, n: rng.choice(values, n), float(values.mean()), within


POPULATIONS: dict[str, Callable[[], tuple]] = {
    "normal": lambda: (lambda rng, n: rng.normal(0, 0.1, n), 0.0, (-1.0, 1.0)),
    "beta(8, 3)": _beta(8, 3),
    "beta(20, 1.5)": _beta(20, 1.5),
}
if "ACTPROBE_PUBLISHED" in os.environ:
    POPULATIONS |= {
        "published AUCs": lambda: _published("logreg"),
        "published knn - logreg": lambda: _published("knn"),
        "published mlp - logreg": lambda: _published("mlp"),
    }


def share_of_rows(p: float, n: int) -> tuple[float, int]:
    """Wilson's interval of an accuracy; exact, from the binomial distribution."""
    hits = np.arange(n + 1)
    ends = np.array([wilson(h / n, n) for h in hits])
    holds = (ends[:, 0] <= p) & (p <= ends[:, 1])
    return float(binom.pmf(hits, n, p)[holds].sum()), 0


def mean_of_runs(n: int, n_runs: int, trials: int = 300) -> tuple[float, int]:
    """Nadeau and Bengio's interval of the mean accuracy of runs over splits of the same n rows.

    The truth is the mean accuracy of classifiers trained on as many other rows.
    """
    rng = np.random.default_rng([n, n_runs])
    d, shift = 10, 0.6
    n_test = n // 5
    truth = np.mean([_accuracy(*_sample(rng, n - n_test, d, shift), *_sample(rng, 2000, d, shift))
                     for _ in range(300)])  # fmt: skip
    found = []
    for _ in range(trials):
        x, y = _sample(rng, n, d, shift)
        orders = [rng.permutation(n) for _ in range(n_runs)]
        accuracies = [
            _accuracy(x[o[n_test:]], y[o[n_test:]], x[o[:n_test]], y[o[:n_test]]) for o in orders
        ]
        found.append(interval(np.array(accuracies), n_test / (n - n_test)))
    return covered(np.array(found), float(truth))


def _sample(rng: np.random.Generator, n: int, d: int, shift: float) -> tuple:
    y = np.arange(n) % 2
    x = rng.standard_normal((n, d))
    x[:, 0] += shift * (2 * y - 1)
    return x, y


def _accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Of the classifier by the nearest class mean."""
    means = [x[y == c].mean(axis=0) for c in (0, 1)]
    closer = [((x_test - m) ** 2).sum(axis=1) for m in means]
    return float(((closer[1] < closer[0]) == y_test).mean())


def cases() -> Iterator[tuple[str, str, Callable[[], tuple[float, int]]]]:
    """(part, case, measurement); all have the nominal level of 95 %."""
    for m, n in SIZES:
        for auc in AUCS:
            for sd in (1.0, 2.0) if (m, n) in ((50, 50), (15, 135)) else (1.0,):
                name = f"{m}+{n} rows, AUC {auc}" + (", spread 2:1" if sd == 2 else "")
                yield "test AUC, over rows", name, lambda a=(m, n, auc, sd): auc_of_rows(*a)
    for kind in ("texts", "pairs"):
        for auc in (0.7, 0.95):
            name = f"{kind}, AUC {auc}"
            yield (
                "test AUC, rows that belong together",
                name,
                lambda a=(kind, auc): auc_of_clusters(*a),
            )
    for population in POPULATIONS:
        for n in DATASETS:
            name = f"{population}, n = {n}"
            yield "mean over datasets", name, lambda a=(population, n): mean_of_datasets(*a)
    for p in (0.5, 0.8, 0.95, 0.99):
        for n in (10, 30, 100):
            yield (
                "accuracy, over rows (Wilson)",
                f"{p}, n = {n}",
                lambda a=(p, n): share_of_rows(*a),
            )
    for n in (60, 200):
        for k in (3, 5, 10):
            name = f"{k} runs on {n} rows"
            yield "accuracy, over runs (Nadeau, Bengio)", name, lambda a=(n, k): mean_of_runs(*a)
