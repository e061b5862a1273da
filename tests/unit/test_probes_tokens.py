"""Probes of all tokens: rows of unequal length, the attention probe, components per position."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from probes_inputs import Cache, as_latents

from actprobe import sae
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import plan, store
from actprobe.probes import protocol
from actprobe.probes.methods import attention
from actprobe.probes.metrics.binary import auc
from actprobe.probes.search import Task
from actprobe.probes.splits import CannotFit
from actprobe.probes.tokens import Ragged, concat_pca

METHOD = protocol.load("saeprobes-paper")["methods"]["attention"]
QUICK = METHOD | {"steps": 300, "learning_rate": 0.02}
ENTRY = {"protocol": "saeprobes-paper", "settings": ["multi_token"]}


def ragged(n, d=8, seed=0, longest=9):
    """One token of each row, at a random place, says its class; a direction marks that token."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % 2
    lengths = rng.randint(2, longest + 1, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    x = 0.3 * rng.standard_normal((offsets[-1], d)).astype(np.float32)
    place = offsets[:-1] + rng.randint(0, lengths)
    x[place, 0] += 4
    x[place, 1] += 4 * (y - 0.5)
    return Ragged(x, offsets), y


def add_tokens(cache, dataset, tokens):
    source = "m/resid_post.0.tokens"
    t = plan.target(
        cache.folder, "activations", 1, f"m/{dataset}/resid_post.0.tokens", {"n": tokens.shape[0]},
        loader="m", item=dataset,
        args={"source": source, "model": "m", "site": "resid_post.0", "position": "tokens"},
    )  # fmt: skip
    arrays = {"x": tokens.x, "offsets": tokens.offsets, "token_ids": tokens.offsets[:0]}
    store.write_h5(t.path, arrays | {"n_tokens": tokens.lengths.astype(np.int32)}, t.record)
    return cache._add(t)


def token_codes(n, width=40, seed=0):
    """Codes of the tokens of n texts: latent 3 fires on one token of the texts of class 1."""
    tokens, y = ragged(n, seed=seed)
    rng = np.random.RandomState(seed)
    codes = rng.exponential(1.0, (len(tokens.x), width)) * (rng.rand(len(tokens.x), width) < 0.1)
    codes[:, 3] = 0
    codes[tokens.offsets[:-1][y == 1], 3] = 2.5
    return codes.astype(np.float32), tokens.offsets, y


def write_token_latents(path, codes, offsets, spec=None):
    z = as_latents(codes)
    arrays = {"data": z.data, "indices": z.indices, "indptr": z.indptr, "shape": np.array(z.shape)}
    store.write_h5(path, arrays | {"offsets": offsets}, spec or {})
    store.publish([path])


def add_token_latents(cache, dataset, codes, offsets):
    t = plan.target(
        cache.folder, "latents", 1, f"s/{dataset}", {"n": len(offsets)}, loader="s", item=dataset,
        args={"source": "s", "model": "m", "site": "resid_post.0", "position": "tokens"},
    )  # fmt: skip
    write_token_latents(t.path, codes, offsets, t.record)
    cache.known["latents"].append(t)
    return t


@pytest.fixture
def cache(tmp_path):
    cache = Cache(tmp_path / "cache")
    tokens, y = ragged(300)
    cache.texts("a", y)
    add_tokens(cache, "a", tokens)
    return cache


def fit(train, y, test, how, seed):
    return attention.attention(Task(train, y, test, how, [], {}, seed))


def test_rows_keep_their_last_tokens():
    tokens = Ragged(np.arange(6, dtype=np.float32)[:, None], np.array([0, 3, 4, 6]))
    chosen = tokens.rows(np.array([2, 0]), most=2)
    assert chosen.x.ravel().tolist() == [4, 5, 1, 2] and chosen.offsets.tolist() == [0, 2, 4]
    assert tokens.rows(np.array([1]), most=9).x.ravel().tolist() == [3]


def test_attention_finds_the_token_that_counts():
    tokens, y = ragged(400)
    at = np.arange(400)
    train, test = tokens.rows(at[:300], 99), tokens.rows(at[300:], 99)
    fitted = fit(train, y[:300], test, QUICK, seed=1)
    assert auc(y[300:], fitted.scores) > 0.95 and fitted.val_score > 0.95
    assert set(fitted.predicted) == {0, 1} and 1 <= fitted.params["step"] <= 300


def test_attention_is_that_of_padded_rows_with_a_mask():
    import torch

    tokens, _ = ragged(20)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 2, generator=generator)
    found = attention._Rows(tokens).logits(weights, torch.tensor(0.5))
    q, v = weights.numpy().T.astype(np.float64)
    for i in range(20):
        x = tokens.x[tokens.offsets[i] : tokens.offsets[i + 1]].astype(np.float64)
        w = np.exp(x @ q - (x @ q).max())
        assert found[i] == pytest.approx((w / w.sum()) @ x @ v + 0.5, abs=1e-4)


def test_a_row_does_not_depend_on_longer_rows_beside_it():
    tokens, y = ragged(60)
    train = tokens.rows(np.arange(40), 99)
    alone = fit(train, y[:40], tokens.rows(np.array([41]), 99), QUICK, 0)
    among = fit(train, y[:40], tokens.rows(np.arange(40, 60), 99), QUICK, 0)
    assert alone.scores[0] == pytest.approx(among.scores[1], abs=1e-6)


def test_attention_is_the_same_twice_and_differs_by_seed():
    tokens, y = ragged(60)
    one, two, other = (fit(tokens, y, tokens, QUICK, s) for s in (3, 3, 4))
    assert (one.scores == two.scores).all() and one.val_score == two.val_score
    assert (one.scores != other.scores).any()


def test_one_class_among_the_validation_rows():
    tokens, _ = ragged(20)
    y = np.zeros(20, int)
    y[np.random.RandomState(0).permutation(20)[:8]] = 1  # all within the fit part
    fitted = fit(tokens, y, tokens, QUICK, seed=0)
    assert math.isnan(fitted.val_score) and fitted.params["step"] == QUICK["steps"]


def test_what_attention_cannot_read():
    tokens, y = ragged(20)
    with pytest.raises(CannotFit, match="too few"):
        fit(tokens.rows(np.array([0]), 9), y[:1], tokens, QUICK, 0)
    empty = Ragged(tokens.x, np.append(tokens.offsets, tokens.offsets[-1]))
    with pytest.raises(CannotFit, match="1 rows have no token"):
        fit(empty, np.append(y, 1), tokens, QUICK, 0)


def test_components_of_each_position_come_from_the_rows_that_reach_it():
    tokens, _ = ragged(50, d=6, longest=5)
    at = np.arange(50)
    train, test = tokens.rows(at[:40], 9), tokens.rows(at[40:], 9)
    found = concat_pca(train, components=3, seed=0)
    X_train, X_test = found.columns(train), found.columns(test)
    assert X_train.shape == (40, 15) and X_test.shape == (10, 15)
    long = train.lengths > 4
    assert (X_train[~long, 12:] == 0).all() and X_train[long, 12:].any()
    assert np.allclose(X_train[:, :3].mean(axis=0), 0, atol=1e-6)


def test_components_of_positions_that_few_rows_reach():
    x = np.random.RandomState(0).standard_normal((7, 4)).astype(np.float32)
    train = Ragged(x, np.array([0, 1, 3, 7]))
    X = concat_pca(train, components=3, seed=0).columns(train)
    assert X.shape == (3, 2 + 1), "positions 2 and 3 have one row"


def test_the_setting_has_a_row_for_both_methods_and_one_split(cache):
    attention_row, concat_row = cache.run(ENTRY)
    assert (attention_row["method"], concat_row["method"]) == ("attention", "concat_pca")
    for row in (attention_row, concat_row):
        assert (row["n_train"], row["n_test"], row["reason"]) == (200, 100, "")
        assert row["position"] == "tokens" and 0.4 < row["test_auc"] <= 1
    assert repr(cache.run(ENTRY)) == repr([attention_row, concat_row])


def test_token_methods_and_vectors_keep_apart(cache):
    """In other settings tokens are no source, and vectors are none here."""
    tokens, _ = ragged(300)
    cache.activations("a", tokens.x[tokens.offsets[1:] - 1])
    planned = cache.plan(cache.config({"protocol": "saeprobes-paper"}, ENTRY))
    sources = {
        (t.spec["setting"], t.args["source"].rpartition(".")[2])
        for t in planned.targets.values()
        if t.stage == "probes"
    }
    assert sources == {("normal", "mean"), ("multi_token", "tokens")}


def test_tokens_that_are_not_finite(tmp_path):
    cache = Cache(tmp_path)
    tokens, y = ragged(250)
    tokens.x[tokens.offsets[17] + 1, 0] = np.nan
    cache.texts("a", y)
    add_tokens(cache, "a", tokens)
    with pytest.raises(ActprobeError, match="1 tokens are not finite, the first in row 17"):
        cache.run({**ENTRY, "methods": ["attention"]})


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pooled_latents_are_those_of_the_last_tokens(tmp_path, pool, monkeypatch):
    from actprobe.sae import pooling

    monkeypatch.setattr(pooling, "_ENTRIES", 50)  # a few texts at a time
    codes, offsets, _ = token_codes(30)
    codes[offsets[4] : offsets[5]] *= -1  # a latent may be negative
    offsets = np.append(offsets, offsets[-1])  # a text without tokens
    write_token_latents(tmp_path / "z.h5", codes, offsets)
    found = sae.open_pooled(tmp_path / "z.h5", pool, most=4)
    expected = np.zeros((31, codes.shape[1]))
    for i in range(30):
        last = codes[max(offsets[i], offsets[i + 1] - 4) : offsets[i + 1]]
        expected[i] = getattr(last, pool)(axis=0)
    np.testing.assert_allclose(found.to_scipy().toarray(), expected, rtol=1e-6)
    assert (found.data != 0).all() and found.shape == (31, 40)


def test_pooling_needs_tokens(tmp_path):
    z = as_latents(np.eye(3))
    arrays = {"data": z.data, "indices": z.indices, "indptr": z.indptr, "shape": np.array(z.shape)}
    store.write_h5(tmp_path / "z.h5", arrays, {})
    store.publish([tmp_path / "z.h5"])
    with pytest.raises(BadInput, match="its rows are not tokens"):
        sae.open_pooled(tmp_path / "z.h5", "max", 4)


def test_pooled_latents_are_probed_in_the_multi_token_setting_alone(tmp_path):
    cache = Cache(tmp_path)
    codes, offsets, y = token_codes(300)
    cache.texts("a", y)
    add_token_latents(cache, "a", codes, offsets)
    rows = {r["method"]: r for r in cache.run(ENTRY)}
    assert set(rows) == {"sae_max", "sae_mean", "sae_max_binarised", "sae_mean_binarised"}
    for name, row in rows.items():
        assert (row["k"], row["n_train"], row["reason"]) == (128, 200, ""), name
        assert row["position"] == "tokens" and json.loads(row["params"])["latents"] <= 40
    assert rows["sae_max"]["test_auc"] == rows["sae_max_binarised"]["test_auc"] == 1
    assert rows["sae_mean_binarised"]["test_auc"] < 1, "a mean over tokens is seldom above 1"
    ours = cache.run(
        {"protocol": "actprobe-1", "settings": ["multi_token"], "methods": ["sae_max"]}
    )
    assert {r["k"] for r in ours} == {16, 128} and min(r["test_auc"] for r in ours) > 0.95
    with pytest.raises(ActprobeError, match="ksparse_a reads latents, and no source here"):
        cache.run({"protocol": "saeprobes-paper", "methods": ["ksparse_a"]})


def test_binarised_codes_are_those_of_the_chosen_latents(tmp_path):
    cache = Cache(tmp_path)
    y = np.arange(300) % 2
    codes = np.zeros((300, 3))
    codes[:, 0] = np.where(y == 1, 0.9, 0.4)  # fires on all: the amount tells
    codes[:, 1] = 0.1
    cache.texts("a", y)
    cache.latents("a", as_latents(codes))
    entry = {"protocol": "saeprobes-0.4.2-fast", "settings": ["normal"]}
    methods = ["ksparse_b", "ksparse_b_binarised"]
    plain, binarised = (
        [r["test_auc"] for r in cache.run({**entry, "methods": [m]})] for m in methods
    )
    assert set(plain) == {1.0} and set(binarised) == {0.5}
