"""False alarms: worked numbers, oracles, and thresholds on fresh data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from actprobe.probes import alarms, thresholds

NEGATIVE = np.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
POSITIVE = np.array([0.35, 0.4, 0.55, 0.8, 0.8, 0.85, 0.9, 0.95])


@pytest.mark.parametrize(
    ("rate", "found"),
    [(0.0, 1), (0.05, 1), (0.1, 3), (0.15, 3), (0.2, 5), (0.3, 5), (1.0, 8)],
)
def test_the_true_positives_at_a_rate_are_those_of_the_step_function(rate, found):
    y = np.repeat([0, 1], [10, 8])
    scores = np.concatenate([NEGATIVE, POSITIVE])
    assert alarms.tpr_at_fpr(y, scores, rate) * 8 == pytest.approx(found)
    assert math.isnan(alarms.tpr_at_fpr(y[:10], scores[:10], rate))
    if rate < 1:
        at = thresholds.choose({"rule": "fpr", "fpr": rate}, y, scores).value
        assert np.mean(at < POSITIVE) * 8 == pytest.approx(found)
        assert np.mean(at < NEGATIVE) <= rate


def test_equal_scores_go_together():
    y = np.repeat([0, 1], [100, 10])
    scores = np.repeat([0.1, 0.9, 0.9, 0.95], [90, 10, 5, 5])
    assert alarms.tpr_at_fpr(y, scores, 0.05) == 0.5
    assert alarms.tpr_at_fpr(y, scores, 0.1) == 1.0


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 100, 0, 0.036217), (0, 300, 0, 0.012221), (0, 3000, 0, 0.001229),
        (1, 100, 0.000253, 0.054459), (5, 500, 0.003255, 0.023181), (10, 1000, 0.004806, 0.018313),
        (1, 1000, 0.000025, 0.005559), (7, 8, 0.473490, 0.996840), (95, 100, 0.887165, 0.983568),
    ],
)  # fmt: skip
def test_intervals_are_those_of_clopper_and_pearson(k, n, low, high):
    found = alarms.share(k, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-7)
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.value == k / n


def test_without_rows_nothing_is_known():
    found = alarms.share(0, 0)
    assert math.isnan(found.value) and math.isnan(found.low) and math.isnan(found.high)
    assert alarms.true_rate(0, 0) == (0.0, 1.0) == alarms.true_rate(5, 5)


def test_how_many_rows_of_class_0_are_needed():
    assert (alarms.least_negatives(0.01), alarms.least_negatives(0.001)) == (299, 2995)
    assert alarms.negatives_for_a_factor_of_two(0.01) == 1000


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_the_true_rate_of_a_threshold_lies_where_it_is_said_to(n):
    rng = np.random.default_rng(0)
    held, trials = 0, 2000
    k = math.floor(0.01 * n + 1e-9)
    low, high = alarms.true_rate(k, n)
    for _ in range(trials):
        scores = rng.random(n)
        at = thresholds.choose({"rule": "fpr", "fpr": 0.01}, np.zeros(n), scores).value
        held += low <= 1 - at <= high  # of uniform scores the true rate
    assert held / trials == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("n", "rate", "rank"), [(99, 0.01, 99), (1000, 0.01, 991), (999, 0.001, 999)]
)
def test_conformal_thresholds_are_order_statistics(n, rate, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1, n + 1) / n)
    assert alarms.conformal(scores, rate) == rank / n
    assert alarms.conformal(scores[:50], 0.001) == math.inf


def test_conformal_thresholds_hold_their_rate_on_average():
    rng = np.random.default_rng(1)
    rates = [1 - alarms.conformal(rng.random(150), 0.05) for _ in range(2000)]
    assert 0.03 < np.mean(rates) <= 0.05
