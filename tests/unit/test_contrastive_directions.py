"""Directions: numbers worked out by hand and by scikit-learn, and what must not change them."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression

from actprobe.models.artefact import bf16_to_float32
from actprobe.probes import methods, validation
from actprobe.probes.methods.directions import find, find_direction, ledoit_wolf
from actprobe.probes.methods.span import span
from actprobe.probes.metrics.binary import auc
from actprobe.probes.search import Task, search

METHODS = ["mean_difference", "logreg", "lda"]


def wide(n=40, d=90, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, d)) * rng.uniform(0.2, 3, d) + 5
    x[:, 3] += shift * y
    return x, y


def fitted(x, y, method, groups=None, folds=4):
    groups = np.arange(len(y)) if groups is None else groups
    parts = validation.folds(y, {"groups": "whole", "folds": folds}, 0, groups)
    return find_direction(method, x, y, parts)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_mean_difference_of_bfloat16_rows_in_float64():
    i, j = np.mgrid[0:12, 0:8]
    values = ((((7 * i + 3 * j) % 11) - 5) * 0.37 * (1 + j)).astype(np.float32)
    bits = (values.view(np.uint32) + 0x7FFF + ((values.view(np.uint32) >> 16) & 1)) >> 16
    bits = bits.astype("<u2")
    assert hashlib.sha256(bits.tobytes()).hexdigest()[:16] == "2e71cdc66e182030"
    x = bf16_to_float32(bits).astype(np.float64)
    f = fitted(x, (np.arange(12) < 6).astype(int), "mean_difference")
    expected = [0.0618490, 1.4791667, 0.1848958, -2.4661458, -3.0807292, 0.3697917, 5.1770833,
                0.4947917]  # fmt: skip
    np.testing.assert_allclose(f.vector, expected, atol=5e-8)
    assert f.norm == pytest.approx(6.706897179, abs=5e-10)
    assert np.linalg.norm(f.unit) == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(f.mean_positive - f.mean_negative, f.vector, atol=1e-14)


@pytest.mark.parametrize(("n", "d"), [(40, 90), (200, 12)])
def test_the_span_keeps_all_inner_products(n, d):
    x, _ = wide(n, d)
    s = span(x)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(s.z @ s.z.T, centred @ centred.T, atol=1e-8)
    np.testing.assert_allclose(s.lift(s.z), centred, atol=1e-8)
    assert s.z.shape[1] == min(n - 1, d)


@pytest.mark.parametrize(("n", "d"), [(40, 90), (300, 12)])
def test_logistic_regression_is_that_of_the_whole_width(n, d):
    x, y = wide(n, d)
    s = span(x)
    w, converged = find("logreg", s.z, y, d, C=0.7)
    centred = x - x.mean(axis=0)
    scale = np.sqrt((centred**2).sum() / n)
    own = LogisticRegression(C=0.7, tol=1e-8, max_iter=5000).fit(centred / scale, y)
    assert converged and cosine(s.lift(w), own.coef_[0]) > 1 - 1e-6
    assert np.linalg.norm(s.lift(w)) == pytest.approx(np.linalg.norm(own.coef_) / scale, rel=1e-3)


@pytest.mark.parametrize(("n", "d"), [(40, 90), (300, 12)])
def test_shrinkage_is_that_of_ledoit_and_wolf(n, d):
    x, _ = wide(n, d)
    centred = x - x.mean(axis=0)
    shrinkage, variance = ledoit_wolf(centred, d)
    assert shrinkage == pytest.approx(ledoit_wolf_shrinkage(centred, assume_centered=True))
    assert variance == pytest.approx(np.trace(centred.T @ centred) / n / d)
    assert ledoit_wolf(span(x).z, d) == pytest.approx((shrinkage, variance))


def test_shrinkage_of_many_rows_takes_little_memory():
    centred = np.random.default_rng(0).standard_normal((20_000, 8))
    tracemalloc.start()
    shrinkage, _ = ledoit_wolf(centred, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * centred.nbytes
    assert shrinkage == pytest.approx(ledoit_wolf_shrinkage(centred, assume_centered=True))


@pytest.mark.parametrize(("n", "d"), [(40, 90), (300, 12)])
def test_lda_whitens_with_the_covariance_within_classes(n, d):
    x, y = wide(n, d)
    within = x - np.stack([x[y == c].mean(axis=0) for c in (0, 1)])[y]
    shrinkage, variance = ledoit_wolf(within, d)
    covariance = (1 - shrinkage) * within.T @ within / n + shrinkage * variance * np.eye(d)
    expected = np.linalg.solve(covariance, x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0))
    s = span(x)
    w, _ = find("lda", s.z, y, d, 1.0)
    np.testing.assert_allclose(s.lift(w), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_swapping_the_classes_turns_every_direction_round(method):
    x, y = wide()
    one, other = fitted(x, y, method), fitted(x, 1 - y, method)
    np.testing.assert_allclose(one.unit, -other.unit, atol=1e-6)
    assert one.val_score == pytest.approx(other.val_score)


def test_the_sign_is_that_of_the_training_rows():
    """A mean difference can point to the class that ranks lower: here one outlier carries it."""
    x = np.zeros((21, 2))
    x[:10, 0] = 1.0
    x[0, 0] = -100.0
    x[:, 1] = np.arange(21) % 3
    y = (np.arange(21) < 10).astype(int)
    difference = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    assert auc(y, x @ difference) < 0.5
    f = fitted(x, y, "mean_difference")
    np.testing.assert_allclose(f.vector, -difference)
    assert f.train_score > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_equal_class_means_give_no_direction(method):
    x = np.tile(np.random.default_rng(0).standard_normal((5, 8)), (2, 1))
    f = fitted(x, np.repeat([0, 1], 5), method, groups=np.tile(np.arange(5), 2))
    assert not f.vector.any() and not f.unit.any() and not f.norm
    assert f.val_score == 0.5 and (f.probability(x @ f.unit) == 0.5).all()


@pytest.mark.parametrize("method", METHODS)
def test_held_out_numbers_tell_signal_from_noise(method):
    x, y = wide(n=200, d=30, shift=4.0)
    signal = fitted(x, y, method)
    noise = fitted(x, np.random.default_rng(1).permutation(y), method)
    assert signal.val_score > 0.85 and signal.val_d > 1
    assert abs(noise.val_score - 0.5) < 0.15


def test_one_group_has_no_held_out_rows():
    x, y = wide()
    assert np.isnan(fitted(x, y, "lda", groups=np.zeros(40, int)).val_score)


def test_scores_far_from_the_training_rows_keep_their_order():
    """Rows of another position may lie hundreds of standard deviations away: no two scores become 1."""
    x, y = wide()
    f = fitted(x, y, "lda")
    far = f.middle + f.spread * (1000 + np.arange(100) / 10)
    found = f.probability(far)
    assert (np.diff(found) > 0).all() and (found < 1).all()
    assert f.probability(np.array([f.middle]))[0] == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_is_a_method_of_any_protocol(method):
    """As a family it takes a task, and its scores rank test rows as projections do."""
    x, y = wide(n=60)
    assert methods.families()["direction"] == ("binary",)
    folds = validation.folds(y[:40], {"groups": "whole", "folds": 5}, 0, np.arange(40))
    how = {"family": "direction", "along": method, "reads": "activations", "scaler": "none"}
    found = search(Task(x[:40], y[:40], x[40:], how, folds, {}, 0))
    along = x[40:] @ found.model.unit
    assert auc(y[40:], found.scores) == pytest.approx(auc(y[40:], along))
    np.testing.assert_array_equal(found.predicted, along > found.model.middle)
    assert found.val_score == found.model.val_score
