"""Numbers at low false-positive rates: worked numbers and scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from actprobe.probes.alarms import tpr_at_fpr
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics import low_fpr, measure

Y = np.repeat([0, 1], [10, 8])
NEGATIVE = [0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
POSITIVE = [0.35, 0.4, 0.55, 0.8, 0.8, 0.85, 0.9, 0.95]
SCORES = np.array([*NEGATIVE, *POSITIVE])


def test_worked_numbers():
    found = measure(BINARY, Y, SCORES, (SCORES > 0.5).astype(int))
    assert found["test_average_precision"] == pytest.approx(0.6848214286)
    assert found["test_pauc_10pct"] == pytest.approx(0.5723684211)
    assert low_fpr.partial_auc(Y, SCORES, 0.2) == pytest.approx(0.6354166667)
    assert found["test_tpr_at_1pct"] == found["test_tpr_at_01pct"] == 1 / 8
    assert found["test_weighted_error"] == pytest.approx((5 * 2 / 8 + 50 * 4 / 10) / 55)


def test_the_weighted_error_of_one_false_alarm_in_a_hundred():
    y = np.repeat([0, 1], [100, 5])
    predicted = np.zeros(105, int)
    predicted[[0, 101, 102, 103, 104]] = 1
    assert low_fpr.weighted_error(y, predicted, predicted) == pytest.approx(0.0272727, abs=5e-8)


@pytest.mark.parametrize("seed", range(20))
def test_with_ties_they_are_those_of_scikit_learn_and_of_the_definition(seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, 60)
    scores = draw.integers(0, 3 + 4 * seed, 60) / 7 + y * 0.2 * (seed % 3)
    for highest in (0.1, 0.01):
        expected = roc_auc_score(y, scores, max_fpr=highest)
        assert low_fpr.partial_auc(y, scores, highest) == pytest.approx(expected)
    assert low_fpr.precision_at(y, scores) == pytest.approx(average_precision_score(y, scores))
    repeated = np.concatenate([np.arange(60), *[np.flatnonzero(y == 0)] * 9])
    rare = np.mean(y[repeated])
    expected = average_precision_score(y[repeated], scores[repeated])
    assert low_fpr.precision_at(y, scores, rare) == pytest.approx(expected)
    # The mean over a fine grid of log FPR of the step function.
    grid = 10 ** -((np.arange(20_000) + 0.5) / 20_000 * 2)
    allowed = np.floor(grid * np.sum(y == 0) + 1e-9)
    steps = {k: tpr_at_fpr(y, scores, k / np.sum(y == 0)) for k in np.unique(allowed)}
    mean = np.mean([steps[k] for k in allowed])
    assert low_fpr.log_auc(y, scores, 0.01) == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize(("lowest", "chance"), [(1e-3, 0.1446), (1e-2, 0.2150)])
def test_chance_and_the_best_over_log_fpr(lowest, chance):
    y = np.tile([0, 1], 50_000)
    assert low_fpr.log_auc(y, np.arange(100_000) / 1e5, lowest) == pytest.approx(chance, abs=2e-3)
    assert low_fpr.log_auc(y, y.astype(float), lowest) == pytest.approx(1)


def test_one_class_alone_has_no_number():
    y = np.zeros(4, int)
    found = measure(BINARY, y, np.arange(4.0), y)
    for name in ("tpr_at_1pct", "pauc_10pct", "log_auc", "average_precision", "weighted_error"):
        assert math.isnan(found[f"test_{name}"])
