"""Training a small top-k SAE: gradients, the course of training, and what is saved."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from sae_tiny import activations, batch, config, encode, killed, targets

from actprobe import sae
from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache import store
from actprobe.sae import checkpoint, stream, training
from actprobe.sae.artefact import read_sae
from actprobe.sae.training import Parameters
from actprobe.sae.weights import Weights

GOLDEN = Path(__file__).parents[1] / "golden" / "sae.json"
D, PARTS = 24, 40

TRAIN = {"width": 64, "k": 3, "epochs": 6, "batch_size": 128, "dead_after": 2000}


def tokens(n_rows=300, seed=0):
    """Token activations: each the sum of three of PARTS directions, and a common mean."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).standard_normal((PARTS, D))
    lengths = rng.integers(3, 30, n_rows)
    z = np.zeros((lengths.sum(), PARTS))
    for row in z:
        row[rng.choice(PARTS, 3, replace=False)] = rng.uniform(0.5, 2, 3)
    x = (z @ directions + 5).astype(np.float32)
    return x, np.concatenate([[0], np.cumsum(lengths)])


def known(cache, xs=None):
    """Published activations of one or more datasets, at the positions mean and tokens."""
    found = []
    for name, (x, offsets) in (xs or {"a": tokens(), "b": tokens(100, seed=1)}).items():
        mean = np.add.reduceat(x, offsets[:-1]) / np.diff(offsets)[:, None]
        ids = np.zeros(len(x), np.int32)
        ragged = {name: {"offsets": offsets, "token_ids": ids}}
        found += activations(cache, {name: mean.astype(np.float32)})
        found += activations(cache, {name: x}, "tokens", **ragged)
    return found


def trained(cache, xs=None, **settings):
    """The artefact of a training run, and its config."""
    cfg = config(cache, {"s": {"train": TRAIN | settings}})
    t = targets(cfg, known(cache, xs))["saes"][0]
    sae.make(batch([t]), cfg, 1)
    return t


def course(t):
    return store.read_header(t.path)["facts"]["training"]


def random_parameters(width=20, d=6, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (width, d), "W_dec": (width, d), "b_enc": (width,), "b_dec": (d,)}
    return Parameters(**{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})


def test_gradient_equals_autograd():
    """Of the error and of the auxiliary loss together, written once more for torch."""
    import torch

    p, dead, k, aux_k, weight = random_parameters(), np.array([1, 4, 9, 15]), 3, 2, 0.5
    x = np.random.default_rng(1).standard_normal((30, 6)).astype(np.float32)
    _, _, found = training.gradient(p, x, k, dead, aux_k, weight)

    q = {n: torch.from_numpy(v).double().requires_grad_() for n, v in vars(p).items()}
    tx = torch.from_numpy(x).double()
    pre = (tx - q["b_dec"]) @ q["W_enc"].T + q["b_enc"]
    value, latent = pre.topk(k, dim=1)
    z = torch.zeros_like(pre).scatter(1, latent, value.relu())
    error = z @ q["W_dec"] + q["b_dec"] - tx
    value, latent = pre[:, dead].topk(aux_k, dim=1)
    z = torch.zeros_like(pre[:, dead]).scatter(1, latent, value.relu())
    left = z @ q["W_dec"][dead] + error.detach()
    loss = error.square().mean() + weight * left.square().sum() / error.detach().square().sum()
    loss.backward()
    for name in vars(p):
        if name != "b_dec":  # the auxiliary loss leaves it alone
            np.testing.assert_allclose(
                getattr(found, name), q[name].grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name
            )


def test_gradient_of_b_dec():
    """It moves the input and the output."""
    p = random_parameters()
    x = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
    _, codes, grad = training.gradient(p, x, 3, np.array([], int), 1, 0)
    wide = {n: v.astype(np.float64) for n, v in vars(p).items()}

    def loss(b_dec):
        pre = (x - b_dec) @ wide["W_enc"].T + wide["b_enc"]
        z = np.zeros_like(pre)
        value = np.take_along_axis(pre, codes.latents, 1)
        np.put_along_axis(z, codes.latents.astype(int), np.maximum(value, 0), 1)
        return np.mean((z @ wide["W_dec"] + b_dec - x) ** 2)

    for i in range(6):
        e = np.eye(6)[i] * 1e-5
        slope = (loss(wide["b_dec"] + e) - loss(wide["b_dec"] - e)) / 2e-5
        assert grad.b_dec[i] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_training_finds_the_directions(tmp_path):
    t = trained(tmp_path)
    curve = course(t)["curve"]
    assert curve[-1][2] < 0.1 < curve[0][2]  # unexplained variance of held-out tokens
    s = read_sae(t.path)
    assert (s.architecture, s.k, s.d_sae, s.d_in) == ("topk", 3, 64, D)
    with Weights(s) as w:
        decoder = w.decoder.rows(np.arange(64))
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), 1, rtol=1e-5)
    directions = np.random.default_rng(7).standard_normal((PARTS, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert np.mean((directions @ decoder.T).max(axis=1) > 0.9) > 0.7


def test_dead_latents_are_revived():
    """Half of the latents start far below the others, too far to be chosen."""
    x, _ = tokens()
    x /= np.sqrt(x.var(axis=0).mean())
    dead = {}
    for weight in (0.03125, 0):
        rng = np.random.default_rng(0)
        p = training.begin(48, x, rng)
        p.b_enc[24:] = -3
        adam, idle = training.Adam(p), np.zeros(48, np.int64)
        for _ in range(400):
            batch_ = x[rng.integers(0, len(x), 256)]
            asleep = np.flatnonzero(idle > 1000)
            _, codes, grad = training.gradient(p, batch_, 3, asleep, 8, weight)
            adam.step(grad, 0.005)
            idle += 256
            idle[codes.latents[codes.values > 0]] = 0
        dead[weight] = np.count_nonzero(idle > 1000)
    assert dead[0.03125] < 12 < 18 < dead[0]


def test_training_is_deterministic_and_seeded(tmp_path):
    digests = {
        (run, seed): keys.file_sha256(trained(tmp_path / f"{run}{seed}", seed=seed, epochs=1).path)
        for run, seed in (("a", 0), ("b", 0), ("a", 1))
    }
    assert digests["a", 0] == digests["b", 0] != digests["a", 1]


def test_killed_training_goes_on_where_it_stood(tmp_path, monkeypatch):
    """It is killed after some steps, again and again, and ends with the same bytes."""
    expected = keys.file_sha256(trained(tmp_path / "whole").path)
    monkeypatch.setattr(checkpoint, "_SECONDS", 0)
    gradient, done = training.gradient, itertools.count()

    def steps_until(last):
        """Steps that this process may do before it kills itself."""
        left = itertools.count(last, -1)

        def step(*args):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            next(done)
            return gradient(*args)

        monkeypatch.setattr(training, "gradient", step)

    for steps in (1, 30, 7, 61, 2, 90):
        steps_until(steps)
        assert killed(lambda: trained(tmp_path), 60)
    steps_until(10**6)
    t = trained(tmp_path)
    assert keys.file_sha256(t.path) == expected
    steps = course(t)["curve"][-1][0] // TRAIN["batch_size"]
    assert next(done) < steps / 2  # of this process; the killed ones did the others
    assert [f.name for f in (tmp_path / "saes").iterdir()] == [Path(t.path).name]


def test_the_state_may_be_saved_after_every_step(tmp_path, monkeypatch):
    """A kill between two measurements, which may lie far apart, costs no more than another."""
    offered = []

    def save(self, arrays, state):
        offered.append((state["steps"], len(state["losses"])))

    monkeypatch.setattr(checkpoint.Checkpoint, "save", save)
    t = trained(tmp_path, epochs=1)
    steps = course(t)["curve"][-1][0] // TRAIN["batch_size"]
    assert [n for n, _ in offered] == list(range(1, steps + 1))
    assert {n for _, n in offered} > {0, 1, 2}  # losses since the last measurement go with it


def test_training_killed_at_any_moment(tmp_path, monkeypatch):
    """While reading, stepping, saving its state, sealing or publishing."""
    expected = keys.file_sha256(trained(tmp_path / "whole", epochs=1).path)
    monkeypatch.setattr(checkpoint, "_SECONDS", 0)
    kills = 0
    while killed(lambda: trained(tmp_path, epochs=1), 0.005 * 1.25**kills):
        kills += 1
    assert kills > 3
    assert keys.file_sha256(trained(tmp_path, epochs=1).path) == expected


def test_the_state_of_another_training_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SECONDS", 0)
    part, arrays = tmp_path / "part", {"a": np.arange(3.0)}
    checkpoint.Checkpoint(part, "1" * 64).save(arrays, {"steps": 5})
    fresh = {"a": np.zeros(3)}
    assert checkpoint.Checkpoint(part, "2" * 64).restore(fresh) is None and not fresh["a"].any()
    assert checkpoint.Checkpoint(part, "1" * 64).restore(fresh) == {"steps": 5}
    assert np.array_equal(fresh["a"], arrays["a"])
    part.write_bytes(part.read_bytes()[:-30])
    assert checkpoint.Checkpoint(part, "1" * 64).restore(fresh) is None


def test_training_stops_early(tmp_path):
    x = np.random.default_rng(0).standard_normal((4000, D)).astype(np.float32)  # nothing to learn
    xs = {"a": (x, np.arange(0, 4001, 10))}
    found = course(trained(tmp_path, xs, epochs=100, patience=3, learning_rate=0.01))
    assert found["stopped"] == "no better in 3 measurements"
    assert found["curve"][-1][0] < 50 * 4000


def test_a_trained_sae_encodes(tmp_path):
    """Latents of pooled activations and their share of variance, through both stages."""
    ts = known(tmp_path)
    cfg = config(tmp_path, {"s": {"train": TRAIN, "position": "mean", "datasets": ["a"]}})
    found = encode(cfg, ts)
    assert set(found) == {"a"}
    assert sae.open_latents(found["a"].path).shape == (300, 64)
    assert sae.open_latents(found["a"].path).l0.max() <= 3
    planned = targets(cfg, ts)
    assert planned["latents"][0].inputs[-1] == planned["saes"][0].path
    assert planned["saes"][0].path.startswith(f"{tmp_path}/saes/s.")
    assert store.read_header(found["a"].path)["facts"]["variance_explained"] > -1


def test_what_training_depends_on(tmp_path):
    """Tokens and settings enter the key; what is encoded afterwards does not."""
    ts = known(tmp_path)

    def path(**entry):
        cfg = config(tmp_path, {"s": {"train": TRAIN} | entry})
        return targets(cfg, ts)["saes"][0].path

    assert path() == path(datasets=["b"])
    others = [path(train=TRAIN | {"seed": 1}), path(train=TRAIN | {"datasets": ["b"]})]
    assert len({path(), *others}) == 3


def test_the_saelens_folder(tmp_path):
    """Written as SAELens writes it, and encoding the same when it is read back."""
    ts = known(tmp_path)
    t = trained(tmp_path)
    folder = sae.save_saelens(t.path, tmp_path / "export")
    cfg = json.loads((folder / "cfg.json").read_text())
    assert cfg["architecture"] == "topk" and cfg["k"] == 3 and cfg["apply_b_dec_to_input"]
    assert cfg["metadata"]["hook_name"] == "blocks.4.hook_resid_post"
    means = [a for a in ts if a.args["position"] == "mean"]
    both = config(
        tmp_path,
        {
            "back": {"source": str(folder), "overrides": {"ignore_mismatch": True}},
            "s": {"train": TRAIN, "position": "mean"},
        },
    )
    codes = []
    for name in ("back", "s"):
        one = both | {"saes": {name: both["saes"][name]}}
        made = encode(one, means if name == "back" else ts)["a"]
        codes.append(sae.open_latents(made.path).to_scipy().toarray())
    np.testing.assert_array_equal(codes[0] != 0, codes[1] != 0)
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-5)


def test_each_epoch_sees_every_token_once_and_no_held_out_one(tmp_path):
    ts = [t for t in known(tmp_path) if t.args["position"] == "tokens"]
    xs = [tokens(), tokens(100, seed=1)]
    with stream.opened([t.path for t in ts], 0.1, 0) as (train, held):
        assert train.n + held.n == sum(len(x) for x, _ in xs)
        everything = {r.tobytes() for x, _ in xs for r in x}
        pools = stream.pools(train, np.random.default_rng(0))
        seen = [r.tobytes() for r in next(pools)]
        out = [r.tobytes() for r in stream.sample(held, 10**6, np.random.default_rng(0))]
        assert len(seen) == train.n and {*seen, *out} == everything and not {*seen} & {*out}
        again = [r.tobytes() for r in next(pools)]
        assert again != seen and sorted(again) == sorted(seen)
        endless = stream.batches(train, 100, np.random.default_rng(0))
        endless = stream.batches(train, 100, np.random.default_rng(0))
        sizes = [len(b) for b in itertools.islice(endless, 200)]
        assert set(sizes) == {100}


def test_small_pools_shuffle_too(tmp_path, monkeypatch):
    ts = [t for t in known(tmp_path) if t.args["position"] == "tokens"]
    monkeypatch.setattr(stream, "POOL", 512)
    with stream.opened([t.path for t in ts], 0.1, 0) as (train, _):
        pools = stream.pools(train, np.random.default_rng(0))
        seen: list[bytes] = []
        while len(seen) < train.n:
            seen += [r.tobytes() for r in next(pools)]
        assert len(set(seen)) == len(seen) == train.n


def test_bad_tokens_are_named(tmp_path):
    x, offsets = tokens()
    x[777, 3] = np.nan
    with pytest.raises(Exception, match=r"a/resid_post\.4\.tokens.*token 777 is not finite"):
        trained(tmp_path, {"a": (x, offsets)})
    with pytest.raises(Exception, match=r"all tokens are equal: nothing to train on"):
        trained(tmp_path / "equal", {"a": (np.ones_like(x), offsets)})
    one = {"a": (x[:5], np.array([0, 5]))}
    with pytest.raises(Exception, match="1 rows of width 24; training holds some rows out"):
        trained(tmp_path / "one", one)


def test_more_latents_than_there_are_cannot_fire(tmp_path):
    cfg = config(tmp_path, {"s": {"train": {"width": 8, "k": 9}}})
    with pytest.raises(ConfigError, match=r"saes\.s\.train\.k: 9 of 8 latents cannot fire"):
        targets(cfg, known(tmp_path))


def test_too_little_memory_for_training(tmp_path):
    cfg = config(tmp_path, {"s": {"train": TRAIN}}, max_memory=10**8)
    t = targets(cfg, known(tmp_path))["saes"][0]
    with pytest.raises(ConfigError, match=r"training saes\.s .* needs \d+ MB"):
        sae.make(batch([t]), cfg, 1)


def test_golden_training(tmp_path):
    """Changed output needs a new stage version, or old SAEs would pass for new ones."""
    t = trained(tmp_path, epochs=1)
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == sae.SAES_VERSION, (
        "the stage version changed: write the new curve and version to tests/golden/sae.json"
    )
    np.testing.assert_allclose(
        np.array(course(t)["curve"])[:, :3],
        golden["curve"],
        rtol=0.05,  # other BLAS kernels choose other latents now and then
        err_msg="training changed: raise SAES_VERSION in sae/targets.py, update tests/golden",
    )
