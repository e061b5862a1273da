"""A batch from files to files: rows, workers, taking over, bad inputs, no row missing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from probes_inputs import Cache, as_latents, data, sparse_data

from actprobe import probes
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.probes import batch as batches
from actprobe.probes import protocol
from actprobe.probes.targets import VERSION

P = "saeprobes-0.4.2"
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "probes.json").read_text())["stage"]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def add(cache, name="a", n=250, d=6, **texts):
    """A dataset with activations and latents."""
    x, y = data(n, d, seed=n)
    cache.texts(name, texts.pop("label", y), texts.pop("text", None), **texts)
    cache.activations(name, x)
    cache.latents(name, sparse_data(n, 60, seed=n)[0])
    return x, y


def test_a_row_says_everything(cache):
    add(cache)
    [row] = cache.run({"protocol": P, "methods": ["logreg"]})
    assert row["dataset"] == "a" and row["source"] == "m/resid_post.0.mean"
    assert (row["model"], row["site"], row["position"]) == ("m", "resid_post.0", "mean")
    assert (row["protocol"], row["setting"], row["condition"]) == (P, "normal", "")
    assert (row["method"], row["k"], row["seed"]) == ("logreg", None, 42)
    assert (row["n_train"], row["n_test"]) == (150, 99)
    assert 0.5 < row["ci_low"] < row["test_auc"] < row["ci_high"] < 1
    assert row["converged"] is True and row["leak_fraction"] == 0 and row["reason"] == ""
    assert row["test_score_unseen"] == row["test_auc"]
    assert set(json.loads(row["params"])) == {"C", "unconverged"}


def test_every_k_has_a_row(cache):
    add(cache)
    rows = cache.run({"protocol": P, "methods": ["ksparse_a", "ksparse_b"]})
    assert [(r["method"], r["k"]) for r in rows[:10]] == [
        ("ksparse_a", k) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    ]
    assert json.loads(rows[9]["params"])["latents"] <= 60, "only so many latents fire"
    assert all(math.isfinite(r["test_score"]) for r in rows)


def test_golden(cache):
    """A digest of the deterministic probes on a tiny input, four digits of every number."""
    add(cache, n=160, d=5)
    rows = cache.run(
        {"protocol": P, "methods": ["logreg", "knn", "ksparse_b"]},
        {"protocol": "actprobe-1", "methods": ["logreg", "pca"]},
    )
    rounded = [
        {c: float(f"{v:.4g}") if isinstance(v, float) and math.isfinite(v) else str(v)
         for c, v in row.items() if c not in ("key", "params") and not c.startswith("kept_")}
        for row in rows
    ]  # fmt: skip
    found = {"version": VERSION, "rows": keys.spec_key({"rows": rounded})}
    assert found == GOLDEN, (
        "the probes stage gives other numbers: raise VERSION in probes/stage.py, then put what "
        "was found here into tests/golden/probes.json"
    )


def test_any_number_of_workers_gives_the_same_bytes(cache, tmp_path):
    other = Cache(tmp_path / "other")
    entries = [
        {"protocol": P, "methods": ["logreg", "mlp", "pca"]},
        {"protocol": "actprobe-1", "methods": ["logreg", "ksparse_b"]},
    ]
    for c, workers in ((cache, 1), (other, 2)):
        add(c, "a", n=130)
        add(c, "b", n=200)
        c.run(*entries, workers=workers)
    one, two = (
        {p.name: p.read_bytes() for p in (c.folder / "probes").rglob("*.parquet")}
        for c in (cache, other)
    )
    assert len(one) == 10 and one == two


def test_workers_do_not_run_the_calling_script_again(tmp_path):
    """Snakemake's scripts have no `if __name__` guard, and workers must not need one."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('script')\n"
        "from pathlib import Path\n"
        "from probes_inputs import Cache, data\n"
        f"cache = Cache(Path({str(tmp_path)!r}) / 'cache')\n"
        "for name in 'ab':\n"
        "    x, y = data(130, 4)\n"
        "    cache.texts(name, y)\n"
        "    cache.activations(name, x)\n"
        f"rows = cache.run({{'protocol': {P!r}, 'methods': ['logreg']}}, workers=2)\n"
        "print(len(rows), __file__.endswith('script.py'))\n"
    )
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert out.stdout.split() == ["script", "2", "True"], out.stderr


def test_a_worker_has_one_thread_per_library(cache):
    add(cache, "a", n=130)
    start = {"initializer": batches._start_worker, "initargs": ((),)}
    with ProcessPoolExecutor(1, get_context("spawn"), **start) as pool:
        pools = pool.submit(_math_libraries).result()
    assert pools and all(p["num_threads"] == 1 for p in pools)


def _math_libraries():
    from threadpoolctl import threadpool_info

    return threadpool_info()


def test_a_killed_worker_is_named(cache, monkeypatch):
    add(cache, "a", n=130)
    add(cache, "b", n=130)
    monkeypatch.setattr(batches, "_rows", _die)
    with pytest.raises(ActprobeError, match="a probe worker was killed, perhaps for want of mem"):
        cache.run({"protocol": P, "methods": ["knn"]}, workers=2)


def _die(made, target):
    os.kill(os.getpid(), signal.SIGKILL)


def test_memory_limits_the_number_of_workers(cache):
    add(cache)
    [t] = cache.plan(cache.config({"protocol": P, "methods": ["knn"]})).batches[0].targets
    assert batches._workers([t] * 8, 4, 10**12) == 4
    assert batches._workers([t] * 8, 4, 700 * 10**6) == 2
    assert batches._workers([t], 4, 10**12) == 1


def test_finished_parts_are_taken_over_without_their_inputs(cache):
    add(cache)
    config = cache.config({"protocol": P, "methods": ["logreg"]})
    [batch] = cache.plan(config).batches
    probes.run(batch, config, 1)
    [t] = batch.targets
    made = Path(t.path).read_bytes()
    Path(t.path).rename(f"{t.path}.part")
    for path in t.inputs:
        Path(path).unlink()
    probes.run(batch, config, 1)
    assert Path(t.path).read_bytes() == made


def test_equal_texts_in_train_and_test_are_counted(cache):
    x, y = data(250, 6)
    cache.texts("a", y, [f"t{i // 2 % 60}" for i in range(250)])
    cache.activations("a", x)
    [row] = cache.run({"protocol": P, "methods": ["logreg"]})
    assert 0.5 < row["leak_fraction"] <= 1
    assert row["test_score_unseen"] != row["test_auc"]
    rows = cache.run({"protocol": "actprobe-1", "methods": ["logreg"]})
    assert {r["leak_fraction"] for r in rows} == {0.0}


def test_groups_stay_together_in_actprobe_1(cache):
    """One group holds all that tells the classes apart: it cannot train and test."""
    x, y = data(240, 6)
    group = [f"g{i // 8}" for i in range(240)]
    cache.texts("a", y, group=group)
    cache.activations("a", x)
    rows = cache.run({"protocol": "actprobe-1", "methods": ["logreg"]})
    assert len({r["seed"] for r in rows}) == len(rows) > 1
    assert all(math.isfinite(r["test_score"]) and r["n_test"] > 30 for r in rows)


@pytest.mark.parametrize(
    ("label", "classes", "reason"),
    [
        ([0, 1] * 20, ("no", "yes"), "100 test rows are needed, 40 are usable"),
        ([0, 1, 2] * 80, ("a", "b", "c"), "needs two classes, found 3"),
        ([0] * 200, ("no",), "needs two classes, found 1"),
        ([0] * 190 + [1] * 10, ("no", "yes"), "positive rows"),
    ],
)
def test_what_cannot_run_has_a_row_with_the_reason(cache, label, classes, reason):
    add(cache, n=len(label), label=label, classes=classes)
    rows = cache.run({"protocol": P, "methods": ["logreg", "ksparse_b"]})
    assert len(rows) == 1 + 10
    assert all(reason in r["reason"] and math.isnan(r["test_score"]) for r in rows)


def test_scarcity_has_a_row_for_each_size(cache):
    add(cache, n=150)
    rows = cache.run({"protocol": P, "settings": ["scarcity"], "methods": ["logreg"]})
    assert [r["n_train"] for r in rows[:3]] == [2, 3, 4]
    assert [int(r["condition"]) for r in rows if not r["reason"]][-1] == 38
    assert len(rows) == 20 and "are usable" in rows[-1]["reason"]


def test_latents_are_ranked_without_the_validation_rows(cache, tmp_path):
    """Random labels on many rare latents: what ranks them on all train rows finds some that fit."""
    rng = np.random.RandomState(0)
    for name in "abc":
        codes = rng.exponential(size=(170, 3000)) * (rng.rand(170, 3000) < 0.05)
        cache.texts(name, rng.permutation(np.arange(170) % 2))
        cache.latents(name, as_latents(codes))
    val_auc = []
    for name in ("actprobe-1", f"{P}-fast"):
        own = tmp_path / f"own-{name}.yaml"
        own.write_text(
            f"name: own-{name}\ndescription: mine\nextends: {name}\n"
            "methods: {ksparse_b: {ks: [16]}}\n"
        )
        rows = cache.run({"protocol": str(own), "methods": ["ksparse_b"]})
        val_auc.append(np.mean([r["val_score"] for r in rows]))
    assert 0.4 < val_auc[0] < 0.6 < 0.8 < val_auc[1]


def test_shuffled_labels_of_activations_and_latents(cache):
    """Without a signal before the ranking: neither validation nor test rows follow the labels."""
    x, y = data(400, 60, strength=2.0)
    cache.texts("a", y)
    cache.activations("a", x)
    cache.latents("a", as_latents(np.maximum(x - 1, 0)))
    for method in ("control_shuffled_labels", "control_ksparse_shuffled"):
        rows = cache.run({"protocol": "actprobe-1", "methods": [method]})
        assert {r["k"] for r in rows} in ({None}, {16, 128}) and len({r["seed"] for r in rows}) == 5
        for auc in ("val_score", "test_auc"):
            assert 0.35 < np.mean([r[auc] for r in rows]) < 0.65, (method, auc)


def test_large_inputs(cache):
    """5,000 rows of a wide model: all test rows count, and d > n is solved."""
    x, y = data(5000, 3584, strength=4.0)
    cache.texts("a", y)
    cache.activations("a", x)
    [row] = cache.run({"protocol": f"{P}-fast", "methods": ["logreg"]})
    assert (row["n_train"], row["n_test"], row["reason"]) == (1024, 3975, "")
    assert 0.7 < row["ci_low"] < row["test_auc"] < row["ci_high"] < 1


def test_no_latent_fires(cache):
    y = np.arange(250) % 2
    cache.texts("a", y)
    cache.latents("a", as_latents(np.zeros((250, 60))))
    rows = cache.run({"protocol": P})
    assert {r["reason"] for r in rows} == {"no latent fires on the 150 train rows"}


def test_out_of_distribution(cache):
    add(cache, "a", n=1500)
    add(cache, "a_OOD", n=130)
    entry = {"protocol": P, "settings": ["ood"], "datasets": ["a"]}
    rows = cache.run(entry)
    assert [(r["condition"], r["method"], r["k"], r["n_train"], r["n_test"]) for r in rows] == [
        ("a_OOD", "logreg", None, 1024, 130),
        ("a_OOD", "ksparse_b", 128, 1024, 130),
    ]
    own = cache.run(entry | {"protocol": "actprobe-1", "methods": ["pca"]})
    assert {(r["n_train"], r["n_test"]) for r in own} == {(1024, 130)}


def test_classes_of_other_names_are_noted(cache, caplog):
    """Classes are numbered by name: a test set that calls them otherwise deserves a look."""
    add(cache, "a", n=1500)
    add(cache, "a_OOD", n=130, classes=("1", "not"))
    entry = {"protocol": P, "settings": ["ood"], "datasets": ["a"], "methods": ["logreg"]}
    [row] = cache.run(entry)
    assert json.loads(row["params"])["test_classes"] == ["1", "not"]
    assert "a_OOD has the classes '1', 'not', a has 'no', 'yes'" in caplog.text


def test_classes_are_those_of_the_same_name(cache):
    """Which class of a dataset is 1 is the config's choice: `positive`."""
    entry = {"protocol": P, "settings": ["ood"], "methods": ["logreg"]}
    x, y = data(1700, 6, strength=6.0)
    for name, flipped in (("a", False), ("b", True)):
        cache.texts(name, y[:1500], classes=("bad", "good"))
        classes = ("good", "bad") if flipped else ("bad", "good")
        cache.texts(f"{name}_OOD", 1 - y[1500:] if flipped else y[1500:], classes=classes)
        cache.activations(name, x[:1500])
        cache.activations(f"{name}_OOD", x[1500:])
    upright, flipped = cache.run({**entry, "datasets": ["a", "b"]})
    assert upright["test_auc"] == flipped["test_auc"] > 0.9
    assert "test_classes" not in json.loads(flipped["params"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("no", "perhaps", "yes"),
            "has the classes 'no', 'perhaps', 'yes', a has 'no', 'yes': a t",
        ),
        (("yes", "zzz"), "a_OOD has the classes 'yes', 'zzz', a has 'no', 'yes': which is which"),
    ],
)
def test_a_test_set_of_other_classes_is_refused(cache, classes, message):
    add(cache, "a", n=1500)
    add(cache, "a_OOD", n=130, label=np.arange(130) % len(classes), classes=classes)
    with pytest.raises(ActprobeError, match=message):
        cache.run({"protocol": P, "settings": ["ood"], "datasets": ["a"], "methods": ["logreg"]})


def test_noise_that_leaves_one_class(cache, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        f"name: own\ndescription: mine\nextends: {P}\nsplit: {{n_train: 2}}\n"
        "settings: {label_noise: {values: [0, 0.5]}}\n"
    )
    add(cache)
    entry = {"protocol": str(own), "settings": ["label_noise"], "methods": ["logreg"]}
    assert [r["reason"] for r in cache.run(entry)] == ["", "one class only among 2 train rows"]


def test_a_test_set_of_the_same_distribution_is_refused(cache):
    text = [f"t{i}" for i in range(1500)]
    add(cache, "a", n=1500, text=text)
    add(cache, "a_OOD", n=130, text=text[100:230])
    with pytest.raises(ActprobeError, match="100% of its texts are in a as well"):
        cache.run({"protocol": P, "settings": ["ood"], "datasets": ["a"], "methods": ["logreg"]})


def test_one_class_in_the_test_set(cache):
    add(cache, "a", n=1500)
    add(cache, "a_OOD", n=30, label=[1] * 30)
    entry = {"protocol": P, "settings": ["ood"], "datasets": ["a"], "methods": ["logreg"]}
    [row] = cache.run(entry)
    assert row["reason"] == "one class in the test set"
    assert math.isnan(row["test_score"]) and row["test_acc"] <= 1


def test_rows_without_a_label_are_left_out(cache):
    _, y = data(300, 6, seed=300)
    add(cache, n=300, label=[None if i % 6 == 5 else int(c) for i, c in enumerate(y)])
    [row] = cache.run({"protocol": "actprobe-1", "methods": ["logreg"]})[:1]
    assert row["n_train"] + row["n_test"] <= 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: add(c, bad="a: 3 texts are empty"), "a: 3 texts are empty"),
        (lambda c: add(c, label=[None] * 250), "no row has a label"),
    ],
)
def test_an_unusable_dataset_stops_or_is_skipped(cache, make, message):
    make(cache)
    add(cache, "b")
    entry = {"protocol": P, "methods": ["logreg"]}
    with pytest.raises(ActprobeError, match=f"1 of 2 targets cannot be made:\n.*{message}"):
        cache.run(entry)
    planned = cache.plan(cache.config(entry))
    with pytest.raises(BadInput, match=message):
        cache.run(entry, on_bad="skip")
    a, b = sorted(planned.wanted)
    assert store.read_header(a)["bad"] and len(store.read_table(b)) == 1


def test_activations_that_are_not_finite(cache):
    x, y = data(250, 4)
    x[17, 2] = np.inf
    cache.texts("a", y)
    cache.activations("a", x)
    with pytest.raises(ActprobeError, match="1 rows are not finite, first row 17"):
        cache.run({"protocol": P, "methods": ["logreg"]})


def test_activations_of_other_rows(cache):
    x, y = data(250, 4)
    cache.texts("a", y)
    cache.activations("a", x[:-1])
    with pytest.raises(Damaged, match="249 rows, expected 250"):
        cache.run({"protocol": P, "methods": ["logreg"]})


def test_bfloat16_activations(cache):
    """Stored as bits; equal to the same numbers stored as float32."""
    x, y = data(250, 4)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    cache.texts("a", y)
    cache.activations("a", bits, site="resid_post.0", attrs={"dtype": "bfloat16"})
    cache.activations("a", (bits.astype(np.uint32) << 16).view(np.float32), site="resid_post.1")
    one, two = cache.run({"protocol": P, "methods": ["logreg"]})
    assert one["test_auc"] == two["test_auc"] and one["site"] != two["site"]


def test_a_protocol_that_changes_during_the_run(cache, tmp_path):
    add(cache)
    own = tmp_path / "own.yaml"
    own.write_text(f"name: own\ndescription: mine\nextends: {P}\n")
    config = cache.config({"protocol": str(own), "methods": ["logreg"]})
    [batch] = cache.plan(config).batches
    own.write_text(f"name: own\ndescription: mine\nextends: {P}\nseeds: [1]\n")
    protocol.load.cache_clear()
    with pytest.raises(ActprobeError, match="changed while the run was going on"):
        probes.run(batch, config, 1)
