"""Scores over rows and tokens, and the controls beside them."""

from __future__ import annotations

import contrastive_inputs as inputs
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from test_contrastive_stage import project

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.models import open_activations
from actprobe.probes import memory, projections
from actprobe.probes.controls import bands
from actprobe.probes.methods import texts
from actprobe.probes.metrics import binary
from actprobe.probes.sizes import CannotFit

LENGTHS = [3, 1, 4, 2, 5, 1, 2, 6] * 3


@pytest.fixture
def config(tmp_path):
    return inputs.resolve(tmp_path, [inputs.dataset(tmp_path, "v", inputs.ROWS)])


def tokens(config, d=7, seed=0, dtype=np.float32):
    x = np.random.default_rng(seed).standard_normal((sum(LENGTHS), d)).astype(np.float32)
    x = (x.view(np.uint32) >> 16).astype(np.uint16) if dtype == np.uint16 else x
    return inputs.activations(config, inputs.make_texts(config)[0], x, lengths=LENGTHS), x


@pytest.mark.parametrize("block", [1, 8 * 7 * 5, 1 << 25])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_statistics_over_tokens_whatever_the_block(config, monkeypatch, block, dtype):
    t, _ = tokens(config, dtype=dtype)
    monkeypatch.setattr(projections, "_BLOCK", block)
    unit = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 3)))[0].T
    with open_activations(t.path) as a:
        values = a[:].astype(np.float64)
    for direction in unit:
        found = projections.statistics(t.path, direction)
        rows = np.split(values @ direction, np.cumsum(LENGTHS)[:-1])
        expected = [[r.mean(), r.max(), r.min(), r.std()] for r in rows]
        np.testing.assert_allclose(found.values, expected, atol=1e-12)
        extreme = [np.nan if len(r) < 2 else r[0] in (r.max(), r.min()) for r in rows]
        np.testing.assert_array_equal(found.first_extreme, np.array(extreme, float))
        assert found.n_tokens.tolist() == LENGTHS
        np.testing.assert_allclose(projections.pooled(t.path) @ direction, found.values[:, 0])


def test_a_row_of_one_vector_has_one_score(config):
    t = inputs.make_texts(config)[0]
    x = inputs.separable(inputs.labels(t))
    found = projections.statistics(inputs.activations(config, t, x).path, np.eye(6)[0])
    np.testing.assert_array_equal(found.values[:, :3], np.repeat(x[:, :1], 3, axis=1))
    assert not found.values[:, 3].any() and np.isnan(found.first_extreme).all()


def test_training_rows_are_means_over_tokens(config):
    t, x = tokens(config)
    expected = [r.mean(axis=0) for r in np.split(x.astype(float), np.cumsum(LENGTHS)[:-1])]
    np.testing.assert_allclose(projections.pooled(t.path), expected, atol=1e-12)


def test_training_rows_must_fit_into_memory(tmp_path):
    config, known = project(tmp_path)
    found = [t for t in inputs.targets(config, known) if t.args["source"] != "texts"]
    assert memory.needed(found[0]) > 4 * 8 * 6 * (40 + 24)
    with pytest.raises(ActprobeError, match="probe files need more memory than `max_memory`"):
        memory.require(found, 1000)


def test_a_value_that_is_not_finite_is_named_by_its_row(config):
    t, x = tokens(config)
    x[sum(LENGTHS[:6]) + 1, 2] = np.inf  # a token of row 6
    t = inputs.activations(config, inputs.make_texts(config)[0], x, lengths=LENGTHS)
    with open_activations(t.path) as a, pytest.raises(BadInput, match="v: row 6 is not finite"):
        list(projections.blocks(a, "v"))


def test_many_aucs_at_once_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    y = np.arange(50) % 3 == 0
    values = rng.integers(0, 8, (20, 50)).astype(float)  # with ties
    expected = [roc_auc_score(y, v) for v in values]
    np.testing.assert_allclose(binary.aucs(y, values), expected)


def test_random_directions_are_unit_and_repeatable():
    a, b = bands.random_directions(16, 200, 0), bands.random_directions(16, 200, 0)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1)
    assert np.abs(a.mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("limit", [1, 8 * 50 * 3, 1 << 27])
def test_g9_aucs_in_blocks_are_those_in_one(monkeypatch, limit):
    rng = np.random.default_rng(0)
    y, values = np.arange(50) % 3 == 0, rng.standard_normal((20, 50))
    expected = binary.aucs(y, values)
    monkeypatch.setattr(binary, "_RANKED", limit)
    np.testing.assert_array_equal(binary.aucs(y, values), expected)
    assert binary.aucs(y, values[:0]).shape == (0,)


def test_a_band_leaves_out_one_in_twenty_of_what_is_exchangeable():
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(2000):
        found, *null = rng.standard_normal(201)
        low, high = bands.band(np.array(null))
        outside += not low <= found <= high
    assert 0.035 < outside / 2000 < 0.065


def test_a_p_value_counts_the_found_one():
    null = np.linspace(0, 1, 199)
    assert bands.p_value(null, 2.0) == pytest.approx(1 / 200)
    assert bands.p_value(null, -1.0) == 1.0


def test_scores_that_follow_length_are_found():
    """A constant first token of score 100 over otherwise random tokens."""
    rng = np.random.default_rng(0)
    length = rng.integers(5, 60, 200)
    score = (100 + np.array([rng.standard_normal(n).sum() for n in length])) / length
    assert bands.length_correlation(score, length) > 0.98
    assert abs(bands.length_correlation(rng.standard_normal(200), length)) < 0.3
    assert np.isnan(bands.length_correlation(score, np.full(200, 7)))


def test_taking_a_direction_out():
    unit = np.array([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]])
    left = bands.without(unit, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(left, [[1, 0, 0], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("n_groups", [1, 2, 4, 9])
def test_a_few_groups_make_as_many_folds(n_groups):
    rows = np.array([f"word{i % 7} other{i % 3}" for i in range(36)], object)
    y, groups = np.arange(36) // 18, np.arange(36) % n_groups
    if n_groups == 1:
        with pytest.raises(CannotFit, match="too few"):
            texts.in_domain(rows, y, groups)
    else:
        assert np.isfinite(texts.in_domain(rows, y, groups).scores).all()


def test_texts_without_words_have_no_number_and_the_reason():
    with pytest.raises(CannotFit, match="no words"):
        texts.words(np.array(["!", "?"] * 5, object), np.tile([0, 1], 5))


@pytest.mark.parametrize("shorter", [0, 1])
def test_length_points_to_the_class_that_is_longer_in_training(shorter):
    train = np.array(["a" * 3, "a" * 9] * 5, object)
    y = np.tile([0, 1], 5) if shorter == 0 else np.tile([1, 0], 5)
    _, score = texts.lengths(train, y)
    found = score(np.array(["a" * n for n in (1, 5, 5000, 50_000)], object))
    order = np.diff(found) > 0
    assert order.all() if shorter == 0 else not order.any()
