"""A14, D8: how well an SAE reconstructs, on a thousand rows or all, with an interval, and without the
rows that carry a massive activation."""

import numpy as np
import pytest
from sae_tiny import D, activations, config, dense, encode, parameters, rows, save_saelens
from scipy.sparse import csr_array

from actprobe.cache import store
from actprobe.sae import quality
from actprobe.sae.assemble import Window
from actprobe.sae.quality import Sampled, sample


def facts(tmp_path, x, position="mean", p=None, **arrays):
    """Facts of the latents of x under a small SAE."""
    folder = save_saelens(tmp_path / "sae", p or parameters())
    known = activations(tmp_path, {"a": x}, position, **arrays)
    cfg = config(tmp_path, {"s": {"source": str(folder), "position": position}})
    return store.verify(encode(cfg, known)["a"].path)["facts"]


def explained(p, x, kind="standard"):
    """Of all rows, from the definition."""
    error = x - (dense(p, x, kind) @ p["W_dec"] + p["b_dec"])
    return 1 - (error**2).sum() / ((x - x.mean(0)) ** 2).sum()


@pytest.mark.parametrize("n", [1, 2, 999, 1000, 1001, 1100, 1999, 2000, 5000, 10**7 + 3])
def test_d8_a_thousand_rows_or_all(n):
    found = sample(n)
    assert len(found) == min(n, 1000) and found.min() >= 0 and found.max() < n
    assert (np.diff(found) > 0).all()
    assert np.array_equal(found, sample(n))


@pytest.mark.parametrize("period", [5, 10, 50])
def test_d8_the_sample_has_no_period(period):
    """Rows at equal distances of 10 tokens would all be first tokens of texts of 10, or none."""
    share = np.mean(sample(10_000) % period == 0)
    assert abs(share - 1 / period) < 4 * np.sqrt(1 / period / 1000)


def test_d8_all_rows_give_the_number_itself_and_no_interval(tmp_path):
    x, p = rows(700), parameters()
    found = facts(tmp_path, x)
    assert found["sample"] == 700
    assert found["variance_explained"] == pytest.approx(explained(p, x), rel=1e-4)
    assert found["variance_explained_low"] is found["variance_explained_high"] is None


def test_d8_a_sample_tells_how_far_it_may_be_off(tmp_path):
    x, p = rows(6000) * np.random.default_rng(5).lognormal(0, 0.7, (6000, 1)), parameters()
    found = facts(tmp_path, x.astype(np.float32))
    low, high = found["variance_explained_low"], found["variance_explained_high"]
    assert found["sample"] == 1000 and 0 < high - low < 0.5
    assert low < found["variance_explained"] < high
    assert low < explained(p, x.astype(np.float32)) < high


def coverage(length, times=400, n=4000):
    """How often the interval of a sample covers the number of all rows. length: tokens of a text,
    which resemble one another."""
    rng = np.random.default_rng(0)
    chosen, text, hit = sample(n), np.arange(n) // length, 0
    for _ in range(times):
        size, worse = rng.lognormal(0, 0.5, (2, n // length))[:, text]
        x = (rng.standard_normal((n, 4)) * size[:, None]).astype(np.float32)
        error = (x**2).sum(1) * 0.3 * worse * rng.lognormal(0, 0.5, n)
        part = Sampled(x[chosen], n)
        part.error[:] = error[chosen]
        found = part.facts()
        truth = 1 - error.sum() / ((x - x.mean(0)) ** 2).sum()
        hit += found["variance_explained_low"] <= truth <= found["variance_explained_high"]
    return hit / times


@pytest.mark.parametrize("length", [1, 20])
def test_d8_the_interval_covers_what_it_says(length):
    """95 %, within two points and two standard errors."""
    assert abs(coverage(length) - 0.95) < 0.02 + 2 * np.sqrt(0.05 * 0.95 / 400)


def sinks(n_texts=60, length=10):
    """Tokens whose first one of each text is a hundred times as large as the others."""
    x = rows(n_texts * length)
    x[::length] = 0.01 * x[::length] + 100 * np.eye(D, dtype=np.float32)[0] * 4
    return x, np.arange(0, n_texts * length + 1, length)


def seeing_sinks(p):
    """An SAE with a latent that reconstructs sinks and nothing else."""
    p["W_enc"][:, 0], p["W_enc"][0], p["W_dec"][0] = 0, 0, 0
    p["W_enc"][0, 0] = p["W_dec"][0, 0] = 1
    p["b_enc"][0] = -8
    return p


def test_a14_rows_with_a_massive_activation_are_told_apart(tmp_path):
    """A sink carries nearly all of the variance: with it the number says nothing of the others."""
    (x, offsets), p = sinks(), seeing_sinks(parameters())
    more = {"a": {"offsets": offsets, "token_ids": np.zeros(len(x), np.int32)}}
    found = facts(tmp_path, x, "tokens", p, **more)
    plain = np.arange(len(x)) % 10 > 0
    assert found["massive"] == 60 and found["sample"] == 600
    assert found["variance_explained"] == pytest.approx(explained(p, x), rel=1e-3)
    assert found["ordinary_explained"] == pytest.approx(explained(p, x[plain]), rel=1e-3)
    assert found["variance_explained"] > 0.99 > found["ordinary_explained"] + 0.5


def test_a14_without_massive_rows_both_numbers_are_one(tmp_path):
    found = facts(tmp_path, rows(300))
    assert found["massive"] == 0
    assert found["ordinary_explained"] == found["variance_explained"]


def test_a14_training_tells_both_too(tmp_path):
    from test_sae_training import course, tokens, trained

    x, offsets = tokens()
    x[offsets[:-1]] *= 100
    found = course(trained(tmp_path, {"a": (x, offsets)}, epochs=1))
    assert found["massive"] > 0
    assert found["curve"][-1][4] > 3 * found["curve"][-1][2]
    plain = course(trained(tmp_path / "plain", epochs=1))
    assert plain["massive"] == 0 and all(row[4] == row[2] for row in plain["curve"])


def test_equal_rows_have_no_variance(tmp_path):
    found = facts(tmp_path, np.ones((30, D), np.float32))
    assert found["variance_explained"] is found["ordinary_explained"] is None


def test_a_transcoder_has_no_quality(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters(), architecture="transcoder")
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    found = store.verify(encode(cfg, activations(tmp_path, {"a": rows(30)}))["a"].path)["facts"]
    assert found["variance_explained"] is None and "massive" not in found


def test_dense_codes_are_reconstructed_in_pieces(tmp_path, monkeypatch):
    """A thousand rows of codes that are not sparse never lie in memory together."""
    monkeypatch.setattr(quality, "ENTRIES", 5000)
    monkeypatch.setattr("actprobe.sae.assemble._ENTRIES", 5000)
    p, x = parameters(), rows(300)
    p["b_enc"][:] = 9
    held = []
    original = quality.Reconstruction.finish

    def finish(recon):
        held.append(sum(part.nnz for _, _, part in recon._waiting))
        original(recon)

    monkeypatch.setattr(quality.Reconstruction, "finish", finish)
    found = facts(tmp_path, x, p=p)
    assert found["variance_explained"] == pytest.approx(explained(p, x), rel=1e-3)
    assert 0 < max(held) < 15_000 < found["nnz"]


def test_neighbouring_decoder_rows_are_read_in_one_go(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    from actprobe.sae.formats import describe
    from actprobe.sae.weights import Weights

    with Weights(describe(folder)) as w:
        decoder = w.decoder
        for chosen in ([0], [5, 6, 7], [1, 4, 9, 60, 61, 99], list(range(100))):
            expected = parameters()["W_dec"][chosen]
            assert np.array_equal(decoder.rows(np.array(chosen)), expected)


def test_what_of_a_window_is_in_the_sample():
    window = Window(10, np.array([1, 0, 2]), np.array([3, 0, 4], np.int32), np.ones(3, np.float32))
    at, z = quality.pick(window, np.array([2, 10, 12, 40]), 6)
    assert at == slice(1, 3) and isinstance(z, csr_array)
    assert z.toarray().tolist() == [[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]]


def test_sums_do_not_depend_on_how_the_decoder_is_cut(tmp_path, monkeypatch):
    """Blocks follow from memory and from the latents of other datasets: the number must not."""
    p = parameters(f=700)
    folder = save_saelens(tmp_path / "sae", p)
    from actprobe.sae.formats import describe
    from actprobe.sae.weights import Weights

    z = csr_array(dense(p, rows(50), "standard").astype(np.float32))
    found = []
    with Weights(describe(folder)) as w:
        for block, n in ((700, 50), (64, 50), (33, 7), (1, 50)):
            monkeypatch.setattr(quality, "_STRIP", n)
            sampled = Sampled(rows(50), 50)
            recon = quality.Reconstruction(w, None, block, n)
            recon.add(sampled, slice(0, 50), z)
            recon.finish()
            found.append(sampled.error.tobytes())
    assert len(set(found)) == 1
