"""What a worker needs is known before it begins, and wide inputs are worked on in blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from probes_inputs import Cache, as_latents, data

from actprobe import sae
from actprobe.base.errors import ActprobeError
from actprobe.probes import memory, search
from actprobe.sae import latents


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def dense_codes(n=40, width=4096):
    return as_latents(np.random.default_rng(0).random((n, width)) + 0.1)


@pytest.mark.parametrize("block", [1, 5000, 1 << 22])
def test_g7_latents_in_blocks_are_those_in_one(monkeypatch, block):
    x, y = dense_codes(), np.arange(40) % 2
    whole = x.class_sums(None, y), x.columns([5, 1, 4000], [7, 3, 3])
    monkeypatch.setattr(latents, "BLOCK", block)
    sums, columns = x.class_sums(None, y), x.columns([5, 1, 4000], [7, 3, 3])
    np.testing.assert_array_equal(columns, whole[1])
    for name in ("latents", "n", "nonzero"):
        np.testing.assert_array_equal(getattr(sums, name), getattr(whole[0], name))
    for name in ("total", "magnitude"):
        np.testing.assert_allclose(getattr(sums, name), getattr(whole[0], name), rtol=1e-12)


def test_g7_ranking_dense_codes_takes_less_than_the_codes(monkeypatch):
    monkeypatch.setattr(latents, "BLOCK", 1 << 14)
    x, y = dense_codes(200), np.arange(200) % 2
    tracemalloc.start()
    best = sae.rank(x, None, y, "b", 16)
    x.columns(best)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.4 * (x.data.nbytes + x.indices.nbytes)


def test_g7_test_rows_in_blocks_score_the_same(cache, monkeypatch):
    x, y = data(400, 30)
    cache.texts("a", y)
    cache.activations("a", x)
    entry = {"protocol": "actprobe-1", "methods": ["logreg", "pca", "knn", "mean_difference"]}
    one = cache.run(entry)
    for p in (cache.folder / "probes").rglob("*.parquet"):
        p.unlink()
    monkeypatch.setattr(search, "TEST_BYTES", 8 * 30 * 7)
    for a, b in zip(one, cache.run(entry), strict=True):
        assert (a["test_auc"], a["test_acc"]) == (b["test_auc"], b["test_acc"])


def test_g7_what_does_not_fit_is_refused_with_the_number_to_write(cache):
    x, y = data(300, 20_000)
    cache.texts("a", y)
    cache.activations("a", x)
    config = cache.config({"protocol": "actprobe-1", "methods": ["knn"]})
    [t] = cache.plan(config).batches[0].targets
    need = memory.needed(t)
    assert 4 * x.nbytes < need - 300e6 < 30 * x.nbytes
    assert memory.require([t], need) == need
    with pytest.raises(ActprobeError, match=r"a.knn needs about \d+ MB: write `max_memory: \d+MB`"):
        memory.require([t], need - 1)


def test_g7_the_need_of_a_latents_file_follows_its_entries(cache):
    y = np.arange(40) % 2
    cache.texts("a", y)
    cache.latents("a", dense_codes(40, 4096))
    config = cache.config({"protocol": "actprobe-1", "methods": ["ksparse_b"]})
    [t] = cache.plan(config).batches[0].targets
    assert memory.needed(t) - 300e6 > 40 * 4096 * (8 + 44)
