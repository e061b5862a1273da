"""Two probes on the same rows: worked numbers, oracles, and how often intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from actprobe.probes import alarms, paired
from actprobe.probes.metrics.binary import auc

Y = np.repeat([0, 1], [10, 8])
A = np.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
              0.35, 0.4, 0.55, 0.8, 0.8, 0.85, 0.9, 0.95])  # fmt: skip
B = np.array([0.2, 0.1, 0.5, 0.3, 0.6, 0.4, 0.2, 0.9, 0.7, 0.1,
              0.5, 0.3, 0.7, 0.9, 0.6, 0.95, 0.8, 0.99])  # fmt: skip


def test_the_worked_numbers_of_delong():
    found = paired.delong(Y, A, B)
    assert found.value == pytest.approx(0.73125 - 0.81875)
    assert found.p == pytest.approx(0.4414485, abs=1e-6)
    error = found.value / -0.7697496
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.959964 * error, found.value + 1.959964 * error), abs=1e-6
    )


def test_delong_is_the_difference_of_covariances():
    rng = np.random.default_rng(0)
    y = (np.arange(90) % 3 == 0).astype(int)
    a, b = np.round(rng.normal(size=(2, 90)) + y, 1)
    psi = [
        (s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0]) for s in (a, b)
    ]
    v10, v01 = [np.cov([p.mean(axis=axis) for p in psi]) for axis in (1, 0)]
    s = v10 / 30 + v01 / 60
    z = (auc(y, a) - auc(y, b)) / math.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert paired.delong(y, a, b).p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


def test_rows_of_a_cluster_are_one_observation():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 30)
    a, b = rng.normal(size=(2, 60)) + y
    alone = paired.delong(y, a, b)
    four = np.tile(np.arange(60), 4)
    together = paired.delong(np.tile(y, 4), np.tile(a, 4), np.tile(b, 4), four)
    assert together.p == pytest.approx(alone.p) and together.low == pytest.approx(alone.low)
    assert paired.delong(np.tile(y, 4), np.tile(a, 4), np.tile(b, 4)).p < alone.p


def test_equal_orders_have_no_p():
    found = paired.delong(Y, A, A * 2)
    assert (found.value, found.low, found.high) == (0, 0, 0) and math.isnan(found.p)
    assert paired.delong(Y[:11], A[:11], B[:11]) is paired.NONE


@pytest.mark.parametrize(("b", "c", "p"), [(5, 1, 0.21875), (12, 3, 0.0351562), (0, 0, 1.0)])
def test_the_worked_numbers_of_mcnemar(b, c, p):
    first = np.repeat([True, False, True, False], [b, c, 4, 3])
    second = np.repeat([False, True, True, False], [b, c, 4, 3])
    assert paired.mcnemar(first, second) == (b, c, pytest.approx(p, abs=1e-6))


@pytest.mark.parametrize("n", [18, 900])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_draw_is_the_rows_that_it_repeats(n, rate, grouped):
    rng = np.random.default_rng(n)
    y = rng.integers(0, 2, n)
    scores = np.round(rng.normal(size=n) + y, 1 if n == 18 else 2)
    draws = paired.resampled(y, rng.integers(0, n // 3, n) if grouped else None, 60)
    found = paired.found_at(draws, scores, rate)
    for drawn, value in zip(draws.counts.astype(int), found, strict=True):
        rows = np.repeat(np.arange(n), drawn)
        assert value == pytest.approx(alarms.tpr_at_fpr(y[rows], scores[rows], rate))


def test_draws_keep_clusters_and_classes():
    y = np.array([0, 0, 0, 1, 1, 1, 0, 1, 0, 1])
    cluster = np.array([0, 0, 1, 2, 2, 3, 4, 4, 5, 5])
    draws = paired.resampled(y, cluster, 200)
    for c in range(6):
        assert np.ptp(draws.counts[:, cluster == c], axis=1).max() == 0
    for of in ([0, 1], [2, 3], [4, 5]):
        first = [draws.counts[:, cluster == c][:, 0] for c in of]
        assert np.all(sum(first) == 2), "as many clusters of each stratum as there are"
    assert np.all(draws.of_class[0] > 0) and np.all(draws.of_class[1] > 0)
    again = paired.resampled(y, cluster, 200)
    assert np.array_equal(draws.counts, again.counts)


def test_the_p_of_draws():
    gap = np.array([0.1] * 98 + [0.0, -0.1])
    found = paired.bootstrapped(0.1, gap, np.zeros(100))
    assert found.p == pytest.approx(2 * (1 + 2) / 101) and found.low <= 0.1 == found.high
    assert math.isnan(paired.bootstrapped(0.0, np.ones(9), np.ones(9)).p)


def test_equal_probes_are_rarely_called_different():
    """Two probes with one signal and noise of their own, 400 times: 5 % of p values are below .05."""
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [100, 60])
    p = []
    for _ in range(400):
        signal = rng.normal(size=160) + y
        a, b = signal + 0.7 * rng.normal(size=(2, 160))
        p.append(paired.delong(y, a, b).p)
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.085
