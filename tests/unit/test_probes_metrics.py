"""AUC, its bootstrap interval, calibration, and leakage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from actprobe.probes import leakage, metrics

RULE = {"resamples": 1000, "level": 0.95, "seed": 42}


@pytest.fixture
def scored():
    """300 labels and scores, many of them tied."""
    rng = np.random.RandomState(1)
    y = rng.randint(0, 2, 300)
    return y, np.round(y + rng.standard_normal(300), 1)


def test_auc_is_scikit_learns_to_the_last_bit():
    rng = np.random.RandomState(0)
    for n in (2, 3, 10, 99, 100, 1000):
        for digits in (0, 1, 2, 17):
            y = rng.permutation(np.arange(n) % 2)
            s = np.round(y * rng.rand() + rng.standard_normal(n), digits)
            assert metrics.auc(y, s) == roc_auc_score(y, s)
            assert metrics.auc(y, s.astype(np.float32)) == roc_auc_score(y, s.astype(np.float32))
            assert metrics.auc(y, np.zeros(n)) == 0.5
    assert math.isnan(metrics.auc(np.array([], int), np.array([])))


def test_resampled_auc_is_the_auc_of_the_resample(scored):
    y, s = scored
    bootstrap = metrics.Bootstrap(y, RULE | {"resamples": 20})
    positive, negative = bootstrap._draws
    found = metrics.resampled_auc(s[y == 1], s[y == 0], positive, negative)
    for b in range(20):
        counts = np.zeros(300, int)
        counts[y == 1], counts[y == 0] = positive[:, b], negative[:, b]
        rows = np.repeat(np.arange(300), counts)
        assert counts.sum() == 300
        assert found[b] == pytest.approx(roc_auc_score(y[rows], s[rows]), abs=1e-12)


def test_interval_holds_the_auc_and_repeats(scored):
    y, s = scored
    low, high = metrics.Bootstrap(y, RULE).interval(s)
    assert low < metrics.auc(y, s) < high and high - low < 0.15
    assert metrics.Bootstrap(y, RULE).interval(s) == (low, high)
    assert metrics.Bootstrap(y, RULE | {"seed": 1}).interval(s) != (low, high)
    wide = metrics.Bootstrap(y, RULE | {"level": 0.99}).interval(s)
    assert wide[0] < low and high < wide[1]


def test_interval_covers_the_true_auc():
    """Of 100 samples about 95 intervals hold the true AUC of two unit normals one apart."""
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))
    y = np.arange(200) % 2
    hits = 0
    for seed in range(100):
        s = y + np.random.RandomState(seed).standard_normal(200)
        low, high = metrics.Bootstrap(y, RULE | {"resamples": 400}).interval(s)
        hits += low <= truth <= high
    assert 88 <= hits <= 99


def test_one_class_has_no_auc():
    y, s = np.ones(5, int), np.linspace(0, 1, 5)
    found = metrics.evaluate(y, s, np.ones(5, int))
    assert math.isnan(found["test_auc"]) and found["test_acc"] == 1.0
    assert all(math.isnan(v) for v in metrics.Bootstrap(y, RULE).interval(s))


def test_calibration():
    y = np.repeat([0, 1], 50)
    sure = metrics.evaluate(y, y.astype(float), y)
    assert sure["test_brier"] == 0 and sure["test_ece"] == 0
    vague = metrics.evaluate(y, np.full(100, 0.5), y)
    assert vague["test_brier"] == 0.25 and vague["test_ece"] == 0
    wrong = metrics.evaluate(y, np.full(100, 0.9), y)
    assert wrong["test_ece"] == pytest.approx(0.4)


def test_repeated_texts():
    train, test = np.array(["a", "b", "b"]), np.array(["b", "c", "a", "a"])
    assert leakage.repeated(train, test).tolist() == [True, False, True, True]
