"""Nulls: each method fitted on labels that were exchanged as the data allow."""

from __future__ import annotations

import contrastive_inputs as inputs
import numpy as np
import pytest
from configs import edited
from test_contrastive_stage import project

from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.probes.controls import bands, nulls, tried
from actprobe.probes.methods import directions
from actprobe.probes.metrics.binary import aucs
from actprobe.report import directions as report
from actprobe.results import directions as tables
from actprobe.results.tables import read_probes

METHODS = ("mean_difference", "logreg", "lda")


def rows(n, d, seed=0):
    """Rows with a falling spectrum, as activations have, and alternating labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5 + 3, np.arange(n) % 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "d"), [(60, 200), (300, 20), (40, 39)])
@pytest.mark.parametrize("C", [1.0, 100.0])
def test_a_null_direction_is_that_of_a_fit_on_the_permuted_labels(method, n, d, C):
    x, y = rows(n, d)
    made, _ = nulls.labels(y, None, np.arange(n), 6, 0)
    units, converged = nulls.units(method, nulls.principal(directions.span(x)), made, C)
    assert converged
    for labels, unit in zip(made, units, strict=True):
        refit = directions.find_direction(method, x, labels, [], C).unit
        assert refit @ unit > 1 - 1e-6


@pytest.mark.parametrize("at_once", [1, 700, 1 << 22])
def test_label_vectors_in_blocks_give_the_same(monkeypatch, at_once):
    x, y = rows(60, 30)
    made, _ = nulls.labels(y, None, np.arange(60), 20, 0)
    of = nulls.principal(directions.span(x))
    whole = [nulls.units(method, of, made, 1.0)[0] for method in METHODS]
    monkeypatch.setattr(nulls, "_AT_ONCE", at_once)
    for method, expected in zip(METHODS, whole, strict=True):
        parts, _ = nulls.units(method, of, made, 1.0)
        np.testing.assert_allclose(parts, expected, atol=1e-3)


def test_labels_of_pairs_are_swapped_within_pairs():
    y = np.tile([0, 1], 4)
    pair = np.array(["a", "a", "b", "b", "c", "c", "d", "d"], object)
    made, orders = nulls.labels(y, pair, np.zeros(8, int), 300, 0)
    assert (made[:, ::2] + made[:, 1::2] == 1).all()
    assert len(np.unique(made, axis=0)) == 16 == round(orders)


def test_other_labels_are_permuted_as_a_whole():
    y = (np.arange(9) < 3).astype(int)
    made, orders = nulls.labels(y, None, np.arange(9), 200, 0)
    assert (made.sum(axis=1) == 3).all() and round(orders) == 84
    assert len(np.unique(made, axis=0)) > 50


def test_groups_of_one_label_keep_one():
    y = np.repeat(np.arange(20) % 2, 5)
    made, _ = nulls.labels(y, None, np.repeat(np.arange(20), 5), 50, 0)
    assert (made.reshape(50, 20, 5).std(axis=2) == 0).all()


def outside(method, group_size, trainings=120):
    """How often a direction of noise labels lies outside its band: 200 training rows with a falling
    spectrum, labels by group, validation rows that differ along the first component."""
    found = 0
    for seed in range(trainings):
        rng = np.random.default_rng(seed)
        spectrum = np.arange(1, 41) ** -0.7
        groups = np.repeat(np.arange(200 // group_size), group_size)
        x = rng.standard_normal((200 // group_size, 40))[groups]
        x = (x + (0 if group_size == 1 else 0.5) * rng.standard_normal((200, 40))) * spectrum
        y = rng.permutation(np.arange(200 // group_size) % 2)[groups]
        xv = rng.standard_normal((100, 40)) * spectrum
        yv = (xv[:, 0] + 0.5 * rng.standard_normal(100) > 0).astype(int)
        fitted = directions.find_direction(method, x, y, [])
        made, _ = nulls.labels(y, None, groups, 99, seed)
        null, _ = nulls.units(method, nulls.principal(fitted.space), made, 1.0)
        low, high = bands.band(aucs(yv, null @ xv.T))
        found += not low <= aucs(yv, fitted.unit[None] @ xv.T)[0] <= high
    return found / trainings


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group_size", [1, 5])
def test_d1_noise_labels_leave_the_band_as_often_as_it_says(method, group_size):
    """Nominal 5 %; of 120 trainings 99.9 % of the time at most 12 %."""
    assert outside(method, group_size) <= 0.12


@pytest.mark.parametrize(("pairs", "has_band"), [(2, False), (10, True)])
def test_d1_too_few_orders_of_the_labels_make_no_band(tmp_path, pairs, has_band):
    """Two questions in both orders of the letters are four pairs: 16 orders of the labels."""
    config, known = project(tmp_path)
    inputs.dataset(tmp_path, "pairs", inputs.PAIRS[: 2 * pairs])
    known["texts"] = inputs.make_texts(config)
    t = next(t for t in known["texts"] if t.item == "pairs")
    x = inputs.separable(inputs.labels(t), shift=2.0)
    known["activations"] = [a for a in known["activations"] if a.item != "pairs"]
    known["activations"].append(inputs.activations(config, t, x))
    inputs.make_tables(config, inputs.run(config, known))
    table = tables.view(read_probes(f"{config['results_dir']}/toy/tables/probes.parquet"))
    fits = table[table["source"] != ""]
    for column in ("null_permuted_low", "null_permuted_high", "p_permuted"):
        assert fits[column].notna().all() == has_band
    assert fits["null_random_low"].notna().all()
    told = fits["warning"].str.contains("16 orders of the training labels, 40 are needed").all()
    assert told == (not has_band)
    lines = report.headline(table)
    assert all(("no null band" in line) == (not has_band) for line in lines)


def test_what_a_library_raises_is_the_reason_of_one_fit(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    config, known = project(tmp_path, methods=["lda"])
    monkeypatch.setattr(directions, "find_direction", fails)
    with pytest.raises(
        ActprobeError,
        match=r"pairs: lda of contrastive-1 .*rows.* cannot be fitted: LinAlgError: Eigenvalues.*leave",
    ):
        inputs.run(config, known)
    config = edited(config, ["on_bad_dataset"], "skip")
    found = inputs.run(config, known)
    assert [bool(store.read_header(t.path)["bad"]) for t in found] == [True, False, False, False]


@pytest.mark.parametrize("scored", [1, 5000, 1 << 27])
def test_g9_null_directions_are_scored_a_few_at_a_time(tmp_path, monkeypatch, scored):
    config, known = project(tmp_path / "a", compare_with="other")
    whole = inputs.applied(inputs.run(config, known))
    monkeypatch.setattr(tried, "_SCORED", scored)
    config, known = project(tmp_path / "b", compare_with="other")
    parts = inputs.applied(inputs.run(config, known))
    for method, d in whole.items():
        for kind, found in d.null.items():
            np.testing.assert_allclose(parts[method].null[kind], found, atol=0.02)
        assert parts[method].row["test_score"] == pytest.approx(d.row["test_score"])


def test_d7_a_test_set_needs_rows_of_each_class(tmp_path):
    config, known = project(tmp_path)
    rows = [{**r, "type": "testing" if i < 4 else "deployment"} for i, r in enumerate(inputs.ROWS)]
    inputs.dataset(tmp_path, "rows", rows)
    known["texts"] = inputs.make_texts(config)
    with pytest.raises(ActprobeError, match=r"4 positive and 20 negative test rows .*least 5"):
        inputs.run(config, known)


def test_d7_one_small_test_set_among_others_is_named(tmp_path):
    """The other test set is of use, so the plan keeps both."""
    config, known = project(tmp_path, apply_to=["rows", "same"], methods=["lda"])
    rows = [{**r, "type": "testing" if i < 4 else "deployment"} for i, r in enumerate(inputs.ROWS)]
    inputs.dataset(tmp_path, "rows", rows)
    known["texts"] = inputs.make_texts(config)
    with pytest.raises(ActprobeError, match="tested on rows: 4 positive and 20 negative"):
        inputs.run(config, known)
