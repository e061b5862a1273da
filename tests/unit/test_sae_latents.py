"""Latents in memory and on disk: columns, sums, rankings, conversions, and what they cost."""

import numpy as np
import pytest
from sae_tiny import F, activations, config, encode, parameters, rows, save_saelens
from scipy.sparse import random_array

from actprobe import sae
from actprobe.sae.latents import Latents


def sparse(n=60, d_sae=300, density=0.05, seed=0) -> Latents:
    rng = np.random.default_rng(seed)
    z = random_array((n, d_sae), density=density, format="csr", rng=rng, dtype=np.float32)
    z.sort_indices()
    return Latents(z.data, z.indices.astype(np.int32), z.indptr.astype(np.int64), z.shape)


def test_columns_equal_the_dense_ones():
    z = sparse()
    x = z.to_scipy().toarray()
    wanted = [299, 0, 17, 18]
    assert np.array_equal(z.columns(wanted), x[:, wanted])
    assert np.array_equal(z.columns(wanted, [5, 3, 3]), x[[5, 3, 3]][:, wanted])
    mask = np.arange(60) % 2 == 0
    assert np.array_equal(z.columns(wanted, mask), x[mask][:, wanted])
    assert z.columns(wanted).dtype == np.float64
    with pytest.raises(ValueError, match="asked for twice"):
        z.columns([3, 3])


def test_rows_and_conversions():
    z = sparse()
    x = z.to_scipy().toarray()
    part = z.rows([7, 2, 7])
    assert np.array_equal(part.to_scipy().toarray(), x[[7, 2, 7]])
    assert np.array_equal(z.to_torch().to_dense().numpy(), x)
    assert np.array_equal(z.l0, (x != 0).sum(1))
    empty = z.rows([])
    assert empty.shape == (0, 300) and empty.columns([1]).shape == (0, 1)


def dense_scores(x, y, rule):
    """Scores from the dense matrix: sae-probes, "rule" a or with each latent over its mean."""
    x = x.astype(np.float64)
    if rule == "b":
        x = x / (np.abs(x).sum(0) / ((x != 0).sum(0) + 1e-6) + 1e-6)
    return np.abs(x[y == 1].mean(0) - x[y == 0].mean(0))


@pytest.mark.parametrize("rule", ["a", "b"])
@pytest.mark.parametrize("k", [1, 16, 299, 300])
def test_ranking_equals_the_dense_one(rule, k):
    z = sparse()
    y = np.arange(60) % 3 == 0
    found = sae.rank(z, None, y, rule, k)
    score = dense_scores(z.to_scipy().toarray(), y, rule)
    assert len(found) == k == len(set(found.tolist()))
    expected = np.sort(score)[::-1][:k]
    np.testing.assert_allclose(score[found], expected, rtol=1e-9)


def test_ranking_on_some_rows_and_few_live_latents():
    z = sparse(density=0.001)
    train = np.arange(0, 60, 2)
    y = (train % 4 == 0).astype(int)
    found = sae.rank(z, train, y, "a", 20)
    live = np.unique(z.rows(train).indices)
    assert len(live) < 20 and set(found[: len(live)]) == set(live)
    assert np.array_equal(found[len(live) :], np.setdiff1d(np.arange(40), live)[: 20 - len(live)])


def test_equal_scores_go_to_the_lower_latent():
    data = np.ones(4, np.float32)
    z = Latents(data, np.array([1, 3, 5, 9], np.int32), np.array([0, 4, 4]), (2, 10))
    assert sae.rank(z, None, [1, 0], "a", 3).tolist() == [1, 3, 5]


def test_ranking_needs_two_classes():
    with pytest.raises(ValueError, match="needs rows of classes 0 and 1"):
        sae.rank(sparse(), None, np.zeros(60, int), "a", 3)
    with pytest.raises(ValueError, match="3 labels for 60 rows"):
        sparse().class_sums(None, [0, 1, 1])


def test_class_sums():
    z = sparse()
    y = np.arange(60) % 3
    x = z.to_scipy().toarray().astype(np.float64)
    sums = z.class_sums(None, y)
    live = np.flatnonzero(x.any(0))
    assert np.array_equal(sums.latents, live) and sums.n.tolist() == [20, 20, 20]
    for c in range(3):
        np.testing.assert_allclose(sums.total[c], x[y == c][:, live].sum(0), rtol=1e-12)
        assert np.array_equal(sums.nonzero[c], (x[y == c][:, live] != 0).sum(0))


def test_bytes_on_disk(tmp_path):
    """At the sparsity of published SAEs a non-zero takes at most 5.5 bytes, all included.

    Latents fire with frequencies 10^N(0, 1), scaled to 100 per row; values are tails of a normal.
    """
    from scipy.stats import norm

    from actprobe.cache import store
    from actprobe.sae import assemble
    from actprobe.sae.assemble import Window

    rng, n, width = np.random.default_rng(0), 2000, 1 << 20
    p = 10 ** rng.standard_normal(width)
    p = np.minimum(100 * p / p.sum(), 0.5)
    fires = [np.flatnonzero(rng.random(width, np.float32) < p) for _ in range(n)]
    latents = np.concatenate(fires).astype(np.int32)
    lengths = np.array([len(f) for f in fires])
    values = norm.isf(rng.random(len(latents)) * p[latents]).astype(np.float32)
    path = tmp_path / "z.h5"
    windows = iter([Window(0, lengths, latents, values)])
    part = assemble.write(path, {"stage": "latents"}, {}, lengths, width, windows)
    store.publish([path], [part])
    assert path.stat().st_size / len(values) <= 5.5
    z = sae.open_latents(path)
    assert np.array_equal(z.data, values) and np.array_equal(z.indices, latents)
    assert z.shape == (n, width) and np.array_equal(z.l0, lengths)


def test_benchmark_files_are_read_as_the_benchmark_does(tmp_path):
    import torch

    z, y = sparse(), np.arange(60) % 2
    sae.save_benchmark(tmp_path / "d", z, y, np.arange(40), np.arange(40, 60))
    x = torch.load(tmp_path / "d_X_train_sae.pt", weights_only=True).to_dense().numpy()
    assert np.array_equal(x, z.to_scipy().toarray()[:40])
    found = torch.load(tmp_path / "d_y_test.pt", weights_only=True).to_dense().numpy()
    assert np.array_equal(found, y[40:])


def test_safetensors(tmp_path):
    from safetensors.numpy import load_file

    z = sparse()
    found = load_file(sae.save_safetensors(tmp_path / "z.safetensors", z))
    assert np.array_equal(found["data"], z.data) and found["shape"].tolist() == [60, 300]


def test_published_latents_are_opened_checked(tmp_path):
    from actprobe.base.errors import Damaged

    folder = save_saelens(tmp_path / "sae", parameters())
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    t = encode(cfg, activations(tmp_path, {"a": rows(9)}))["a"]
    assert sae.open_latents(t.path, t.key).shape == (9, F)
    with open(t.path, "r+b") as f:
        f.truncate(500)
    with pytest.raises(Damaged):
        sae.open_latents(t.path)
