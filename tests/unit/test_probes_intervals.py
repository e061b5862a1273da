"""Intervals of the AUC: DeLong's variance, clusters, level, ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from actprobe.probes.intervals import auc_interval, placements
from actprobe.probes.metrics.binary import auc


@pytest.fixture
def scored():
    """300 labels and scores, many of them tied."""
    rng = np.random.RandomState(1)
    y = rng.randint(0, 2, 300)
    return y, np.round(y + rng.standard_normal(300), 1)


def shared_by_class(scores, y, i):
    """The share of the other class that row i beats, by counting."""
    others = scores[y != y[i]]
    wins = (others < scores[i]) if y[i] == 1 else (others > scores[i])
    return wins.mean() + (others == scores[i]).mean() / 2


def test_placements_are_shares_of_the_other_class(scored):
    y, s = scored
    found = placements(y, s)
    assert found == pytest.approx([shared_by_class(s, y, i) for i in range(300)])
    for c in (0, 1):
        assert found[y == c].mean() == pytest.approx(auc(y, s))


def test_an_interval_holds_the_auc_and_follows_the_level(scored):
    y, s = scored
    low, high = auc_interval(y, s)
    assert low < auc(y, s) < high and 0.05 < high - low < 0.15
    wide = auc_interval(y, s, level=0.99)
    assert wide[0] < low and high < wide[1]


def test_of_many_rows_it_is_the_interval_of_delong():
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 2
    s = y + rng.standard_normal(4000)
    share = placements(y, s)
    error = math.sqrt(sum(share[y == c].var(ddof=1) / 2000 for c in (0, 1)))
    low, high = auc_interval(y, s)
    middle = auc(y, s)
    assert (low, high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=5e-4)


@pytest.mark.parametrize("n", [4, 8, 40, 1000])
@pytest.mark.parametrize("turned", [False, True])
def test_d7_no_interval_has_width_zero(n, turned):
    y = np.arange(n) % 2
    low, high = auc_interval(y, (1 - y if turned else y).astype(float))
    assert (low, high)[not turned] == (0.0 if turned else 1.0)
    assert 0 < high - low < 1 and (high - low > 0.2) == (n < 40)
    low, high = auc_interval(y, np.zeros(n))
    assert low < 0.5 < high


def test_rows_of_one_cluster_are_one_observation(scored):
    y, s = scored
    once = auc_interval(y, s)
    rows = np.repeat(np.arange(300), 4)
    often = auc_interval(y[rows], s[rows], cluster=rows)
    assert often == pytest.approx(once, abs=5e-3)
    apart = auc_interval(y[rows], s[rows])
    assert apart[1] - apart[0] < 0.6 * (often[1] - often[0])


def test_pairs_of_both_classes_narrow_the_interval():
    """A common level of both rows of a pair cancels in their comparison."""
    rng = np.random.default_rng(0)
    y, pair = np.tile([0, 1], 100), np.repeat(np.arange(100), 2)
    s = 1.0 * y + 3 * rng.standard_normal(100)[pair] + 0.3 * rng.standard_normal(200)
    paired, apart = auc_interval(y, s, pair), auc_interval(y, s)
    assert paired[1] - paired[0] < apart[1] - apart[0]


def test_without_two_rows_or_clusters_of_each_class_there_is_no_interval():
    y = np.array([0, 0, 0, 1])
    assert all(map(math.isnan, auc_interval(y, np.arange(4.0))))
    y = np.array([0, 0, 1, 1])
    assert all(map(math.isnan, auc_interval(y, np.arange(4.0), np.array([0, 1, 2, 2]))))
    assert all(map(math.isnan, auc_interval(np.ones(4, int), np.arange(4.0))))


@pytest.mark.parametrize(("m", "n", "auc"), [(20, 20, 0.7), (10, 90, 0.85), (60, 60, 0.97)])
def test_intervals_cover_the_true_auc(m, n, auc):
    """Of 300 samples of two normal classes at least 93 in 100 intervals hold the true AUC."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [m, n])
    shift = math.sqrt(2) * norm.ppf(auc)
    hits = 0
    for _ in range(300):
        low, high = auc_interval(y, shift * y + rng.standard_normal(m + n))
        hits += low <= auc <= high
    assert hits >= 0.93 * 300


def test_g9_a_hundred_thousand_rows_take_a_few_vectors():
    import tracemalloc

    y = np.arange(100_000) % 2
    s = y + np.random.default_rng(0).standard_normal(100_000)
    tracemalloc.start()
    auc_interval(y, s, np.arange(100_000) // 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
