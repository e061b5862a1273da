"""Directions: numbers worked out by hand and by scikit-learn, and what must not change them."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression

from actprobe.contrastive import directions
from actprobe.contrastive.directions import find, fit, ledoit_wolf, span, split
from actprobe.models.artefact import bf16_to_float32

METHODS = ["mean_difference", "logreg", "lda"]


def wide(n=40, d=90, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, d)) * rng.uniform(0.2, 3, d) + 5
    x[:, 3] += shift * y
    return x, y


def fitted(x, y, methods=METHODS, groups=None, folds=4):
    groups = np.arange(len(y)) if groups is None else groups
    return fit(x, y, groups, methods, 1.0, folds, 0)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_mean_difference_of_bfloat16_rows_in_float64():
    i, j = np.mgrid[0:12, 0:8]
    values = ((((7 * i + 3 * j) % 11) - 5) * 0.37 * (1 + j)).astype(np.float32)
    bits = (values.view(np.uint32) + 0x7FFF + ((values.view(np.uint32) >> 16) & 1)) >> 16
    bits = bits.astype("<u2")
    assert hashlib.sha256(bits.tobytes()).hexdigest()[:16] == "2e71cdc66e182030"
    x = bf16_to_float32(bits).astype(np.float64)
    f = fitted(x, (np.arange(12) < 6).astype(int), ["mean_difference"])
    expected = [0.0618490, 1.4791667, 0.1848958, -2.4661458, -3.0807292, 0.3697917, 5.1770833,
                0.4947917]  # fmt: skip
    np.testing.assert_allclose(f.direction[0], expected, atol=5e-8)
    assert f.norm[0] == pytest.approx(6.706897179, abs=5e-10)
    np.testing.assert_allclose(np.linalg.norm(f.unit, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(f.mean_positive - f.mean_negative, f.direction[0], atol=1e-14)


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


def test_swapping_the_classes_turns_every_direction_round():
    x, y = wide()
    one, other = fitted(x, y), fitted(x, 1 - y)
    np.testing.assert_allclose(one.unit, -other.unit, atol=1e-6)
    np.testing.assert_allclose(one.val_auc, other.val_auc)


def test_the_sign_is_that_of_the_training_rows():
    """A mean difference can point to the class that ranks lower: here one outlier carries it."""
    x = np.zeros((21, 2))
    x[:10, 0] = 1.0
    x[0, 0] = -100.0
    x[:, 1] = np.arange(21) % 3
    y = (np.arange(21) < 10).astype(int)
    difference = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    assert directions.auc(y, x @ difference) < 0.5
    f = fitted(x, y, ["mean_difference"])
    np.testing.assert_allclose(f.direction[0], -difference)
    assert f.train_auc[0] > 0.5


def test_equal_class_means_give_no_direction():
    x = np.tile(np.random.default_rng(0).standard_normal((5, 8)), (2, 1))
    f = fitted(x, np.repeat([0, 1], 5), groups=np.tile(np.arange(5), 2))
    assert not f.direction.any() and not f.unit.any() and not f.norm.any()
    assert f.val_auc.tolist() == [0.5] * 3


def test_held_out_rows_leave_with_their_group():
    y = np.tile([0, 1], 20)
    groups = np.repeat(np.arange(20), 2)
    parts = split(y, groups, 5, seed=0)
    assert len(parts) == 5
    for a, b in parts:
        assert not set(groups[a]) & set(groups[b])
    assert sorted(np.concatenate([b for _, b in parts])) == list(range(40))
    again, other = split(y, groups, 5, seed=0), split(y, groups, 5, seed=1)
    assert [b.tolist() for _, b in parts] == [b.tolist() for _, b in again]
    assert [b.tolist() for _, b in parts] != [b.tolist() for _, b in other]
    assert len(split(y, groups // 10, 5, 0)) == 2 and split(y, groups * 0, 5, 0) == []


def test_held_out_numbers_tell_signal_from_noise():
    x, y = wide(n=200, d=30, shift=4.0)
    signal = fitted(x, y)
    noise = fitted(x, np.random.default_rng(1).permutation(y))
    assert signal.val_auc.min() > 0.85 and signal.val_d.min() > 1
    assert np.abs(noise.val_auc - 0.5).max() < 0.15


def test_one_group_has_no_held_out_rows():
    x, y = wide()
    assert np.isnan(fitted(x, y, groups=np.zeros(40, int)).val_auc).all()
