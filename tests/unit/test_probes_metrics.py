"""AUC, calibration, and leakage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from actprobe.probes import leakage, metrics
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics.binary import auc


def test_auc_is_scikit_learns_to_the_last_bit():
    rng = np.random.RandomState(0)
    for n in (2, 3, 10, 99, 100, 1000):
        for digits in (0, 1, 2, 17):
            y = rng.permutation(np.arange(n) % 2)
            s = np.round(y * rng.rand() + rng.standard_normal(n), digits)
            assert auc(y, s) == roc_auc_score(y, s)
            assert auc(y, s.astype(np.float32)) == roc_auc_score(y, s.astype(np.float32))
            assert auc(y, np.zeros(n)) == 0.5
    assert math.isnan(auc(np.array([], int), np.array([])))


def test_one_class_has_no_auc():
    y, s = np.ones(5, int), np.linspace(0, 1, 5)
    found = metrics.measure(BINARY, y, s, np.ones(5, int))
    assert math.isnan(found["test_auc"]) and found["test_acc"] == 1.0


def test_calibration():
    y = np.repeat([0, 1], 50)
    sure = metrics.measure(BINARY, y, y.astype(float), y)
    assert sure["test_brier"] == 0 and sure["test_ece"] == 0
    vague = metrics.measure(BINARY, y, np.full(100, 0.5), y)
    assert vague["test_brier"] == 0.25 and vague["test_ece"] == 0
    wrong = metrics.measure(BINARY, y, np.full(100, 0.9), y)
    assert wrong["test_ece"] == pytest.approx(0.4)


def test_repeated_texts():
    train, test = np.array(["a", "b", "b"]), np.array(["b", "c", "a", "a"])
    assert leakage.repeated(train, test).tolist() == [True, False, True, True]
