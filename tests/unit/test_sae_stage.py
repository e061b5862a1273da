"""The latents stage: what lands in the cache, and what a second, killed or bad run does."""

import itertools
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sae_tiny import (
    D,
    F,
    K,
    activations,
    batch,
    config,
    dense,
    encode,
    killed,
    parameters,
    rows,
    save_saelens,
    targets,
)

from actprobe import sae
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import plan, store
from actprobe.sae import latents_stage, memory
from actprobe.sae.engine import Cpu
from actprobe.sae.pieces import Pieces
from actprobe.sae.weights import Matrix, Weights

GOLDEN = Path(__file__).parents[1] / "golden" / "latents.json"


@pytest.fixture
def folder(tmp_path):
    return save_saelens(tmp_path / "sae", parameters(), model_name="tiny")


def facts(t):
    return store.verify(t.path)["facts"]


def test_the_artefact(tmp_path, folder):
    x = rows(40)
    t = encode(config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, {"a": x}))[
        "a"
    ]
    header, p = store.verify(t.path), parameters()
    z = dense(p, x, "standard")
    found = header["facts"]
    assert header["key"] == t.key and header["spec"] == t.record
    assert found["nnz"] == np.count_nonzero(z) and found["engine"] == "numpy"
    l0 = (z != 0).sum(1)
    assert (found["l0"]["min"], found["l0"]["max"]) == (l0.min(), l0.max())
    assert found["dead"] == F - z.any(0).sum() and found["live"] + found["dead"] == F
    error = x - (z @ p["W_dec"] + p["b_dec"])
    spread = x - x.mean(0)
    expected = 1 - (error**2).sum() / (spread**2).sum()
    assert found["variance_explained"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
def test_reconstruction_undoes_normalisation(tmp_path, normalize):
    """An SAE whose latents are the coordinates and their negatives gives its input back."""
    eye = np.eye(D, dtype=np.float32)
    p = {"W_enc": np.hstack([eye, -eye]), "W_dec": np.vstack([eye, -eye]),
         "b_enc": np.zeros(2 * D, np.float32), "b_dec": np.full(D, 0.3, np.float32)}  # fmt: skip
    folder = save_saelens(tmp_path / "sae", p, normalize_activations=normalize)
    cfg = config(tmp_path, {"s": {"source": str(folder), "fold_decoder_norm": True}})
    t = encode(cfg, activations(tmp_path, {"a": rows(40) + 2}))["a"]
    assert facts(t)["variance_explained"] == pytest.approx(1, abs=1e-6)


def test_adding_a_dataset_encodes_that_dataset_alone(tmp_path, folder, monkeypatch):
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    first = encode(cfg, activations(tmp_path, {"a": rows(20)}))["a"]
    stamp = os.stat(first.path).st_mtime_ns
    encoded = []
    original = latents_stage.encode
    monkeypatch.setattr(
        latents_stage, "encode",
        lambda tiles, *rest: encoded.append([len(t.x) for t in tiles]) or original(tiles, *rest),
    )  # fmt: skip
    both = encode(cfg, activations(tmp_path, {"a": rows(20), "b": rows(7, seed=2)}))
    assert both["a"].path == first.path and os.stat(first.path).st_mtime_ns == stamp
    assert encoded == [[7]]


def test_adding_an_sae_leaves_the_others_alone(tmp_path, folder):
    known = activations(tmp_path, {"a": rows(20)})
    [before] = targets(config(tmp_path, {"s": {"source": str(folder)}}), known)["latents"]
    other = save_saelens(tmp_path / "other", parameters(seed=5))
    cfg = config(tmp_path, {"s": {"source": str(folder)}, "t": {"source": str(other)}})
    after = targets(cfg, known)["latents"]
    assert before in after and len(after) == 2 and len({t.loader for t in after}) == 2


def test_bits_do_not_depend_on_memory_or_company(tmp_path):
    p = parameters("jumprelu", f=9001)
    folder = save_saelens(tmp_path / "sae", p, architecture="jumprelu")
    xs = {name: rows(n, seed=n) for name, n in {"a": 1500, "b": 30, "c": 1024}.items()}
    digests = []
    for run, limit in enumerate((500 * 10**6, 4 * 10**9)):
        cache = tmp_path / f"run{run}"
        cfg = config(cache, {"s": {"source": str(folder)}}, max_memory=limit)
        found = encode(cfg, activations(cache, xs))
        digests.append({name: keys.file_sha256(t.path) for name, t in found.items()})
    cache = tmp_path / "alone"
    cfg = config(cache, {"s": {"source": str(folder)}})
    alone = encode(cfg, activations(cache, {"b": xs["b"]}))
    assert digests[0] == digests[1]
    assert keys.file_sha256(alone["b"].path) == digests[0]["b"]


@pytest.mark.parametrize(("name", "at", "message"), [
    ("W_enc", (3, 5), "a weight of latent 5 is not finite"),
    ("b_enc", 7, r"value 7 of b_enc is no number \(NaN\)"),
])  # fmt: skip
def test_an_sae_with_a_weight_that_is_no_number_is_refused(tmp_path, name, at, message):
    p = parameters()
    p[name][at] = np.nan
    folder = save_saelens(tmp_path / "sae", p)
    cfg, known = (
        config(tmp_path, {"s": {"source": str(folder)}}),
        activations(tmp_path, {"a": rows(9)}),
    )
    with pytest.raises(ActprobeError, match=message):
        encode(cfg, known)
    assert not any(Path(t.path).exists() for t in targets(cfg, known)["latents"])


def test_the_sae_is_opened_and_read_once(tmp_path, folder, monkeypatch):
    blocks, opened = [], []
    read, start = Matrix.block, Weights.__init__
    monkeypatch.setattr(Matrix, "block", lambda m, *ab: blocks.append(ab) or read(m, *ab))
    monkeypatch.setattr(Weights, "__init__", lambda w, s: opened.append(s) or start(w, s))
    xs = {name: rows(30, seed=ord(name)) for name in "abcdefgh"}
    encode(config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, xs))
    assert len(opened) == 1 and blocks == [(0, F)] * 2  # its encoder, and its decoder


def to_be_killed(tmp_path, monkeypatch, architecture, blocks):
    """An SAE of so many blocks: config, upstream, and the digests of a run left alone."""
    p = parameters(architecture, f=blocks * 4096)
    more = {"k": K} if architecture == "topk" else {}
    folder = save_saelens(tmp_path / "sae", p, architecture=architecture, **more)
    xs = {"a": rows(1100), "b": rows(40, seed=9)}
    entry = {"s": {"source": str(folder)}}
    whole = encode(config(tmp_path / "whole", entry), activations(tmp_path / "whole", xs))
    monkeypatch.setattr(memory, "_MAX_BLOCK", 4096)
    expected = {n: keys.file_sha256(t.path) for n, t in whole.items()}
    return config(tmp_path, entry), activations(tmp_path, xs), expected


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_killed_runs_end_bit_identical(tmp_path, monkeypatch, architecture):
    cfg, known, expected = to_be_killed(tmp_path, monkeypatch, architecture, blocks=12)
    flush, read = Pieces.flush, Matrix.block
    sizes = []
    for blocks in (2, 3, 3):
        pid = os.fork()
        if pid == 0:  # dies after so many blocks, with the last one only partly handed over
            left = itertools.count(2 * blocks, -1)

            def flush_or_die(pieces, safe=False, left=left):
                flush(pieces, safe)
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(Pieces, "flush", flush_or_die)
            encode(cfg, known)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        parts = [Path(store.part_path(t.path)) for t in targets(cfg, known)["latents"]]
        sizes.append(sum(p.stat().st_size for p in parts))
    assert sizes[0] < sizes[1] < sizes[2]
    with open(parts[0], "r+b") as f:  # a record cut in two by the kill
        f.truncate(parts[0].stat().st_size - 5)
    blocks = []
    monkeypatch.setattr(Matrix, "block", lambda m, *ab: blocks.append(ab) or read(m, *ab))
    found = encode(cfg, known)
    assert {n: keys.file_sha256(t.path) for n, t in found.items()} == expected
    assert blocks[0][0] == 8 * 4096  # the first blocks were not read again


@pytest.mark.parametrize("limit", ["WAITING", "_WAIT_SECONDS"])
@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_a_kill_inside_a_block_keeps_the_tiles_before_it(
    tmp_path, monkeypatch, architecture, limit
):
    """Entries are handed over when they are many or old, not when a block is done."""
    cfg, known, expected = to_be_killed(tmp_path, monkeypatch, architecture, blocks=3)
    monkeypatch.setattr(memory, "_MAX_BLOCK", 3 * 4096)
    monkeypatch.setattr(f"actprobe.sae.encode.{limit}", 0)
    product, left = Cpu.product, itertools.count(4, -1)

    def product_or_die(engine, x, w):
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return product(engine, x, w)

    monkeypatch.setattr(Cpu, "product", product_or_die)
    assert killed(lambda: encode(cfg, known), 60)
    a = next(t for t in targets(cfg, known)["latents"] if t.item == "a")
    log = Pieces(store.part_path(a.path), a.key)
    assert (log.done(0), log.done(1)) == (3, 1)
    left = itertools.count(9 - 4, -1)  # products that are left to do
    found = encode(cfg, known)
    assert {n: keys.file_sha256(t.path) for n, t in found.items()} == expected


def test_entries_that_wait_are_bounded_over_all_datasets(tmp_path, monkeypatch):
    p = parameters(f=9001)
    cfg = config(tmp_path, {"s": {"source": str(save_saelens(tmp_path / "sae", p))}})
    xs = {name: rows(200, seed=ord(name)) for name in "abcd"}
    monkeypatch.setattr("actprobe.sae.encode.WAITING", 10**6)
    waiting, largest, add, flush = [], [], Pieces.add, Pieces.flush
    monkeypatch.setattr(Pieces, "add", lambda *a: waiting.append(add(*a)) or waiting[-1])

    def flushed(pieces, safe=False):
        largest.append(sum(waiting))
        waiting.clear()
        flush(pieces, safe)

    monkeypatch.setattr(Pieces, "flush", flushed)
    encode(cfg, activations(tmp_path, xs))
    assert 10**6 < max(largest) < 2 * 10**6


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_killed_at_any_moment(tmp_path, monkeypatch, architecture):
    """While reading, encoding, logging, assembling, sealing or publishing: again and again."""
    cfg, known, expected = to_be_killed(tmp_path, monkeypatch, architecture, blocks=3)
    kills = 0
    while killed(lambda: encode(cfg, known), 0.002 * 1.25**kills):
        kills += 1
    assert kills > 3
    found = encode(cfg, known)
    assert {n: keys.file_sha256(t.path) for n, t in found.items()} == expected
    left = [f.name for f in (tmp_path / "latents").rglob("*") if f.is_file()]
    assert sorted(left) == sorted(Path(t.path).name for t in found.values())


def test_more_datasets_than_files_may_be_open(tmp_path, folder):
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    known = activations(tmp_path, {f"d{i}": rows(2, seed=i) for i in range(90)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert len(encode(cfg, known)) == 90
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_finished_parts_need_no_sae(tmp_path, folder, monkeypatch):
    cfg, known = (
        config(tmp_path, {"s": {"source": str(folder)}}),
        activations(tmp_path, {"a": rows(9)}),
    )
    t = encode(cfg, known)["a"]
    os.rename(t.path, store.part_path(t.path))
    monkeypatch.setattr(latents_stage, "opened", None)
    sae.run(batch([t]), cfg, 1)
    assert Path(t.path).exists()


# -- bad inputs


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite(tmp_path, folder, value):
    bad = rows(1030)
    bad[1025, 3] = value
    known = activations(tmp_path, {"bad": bad, "good": rows(9)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    with pytest.raises(ActprobeError, match=r"1 of 2 targets .*\n.*row 1025 is not finite"):
        encode(cfg, known)
    found = encode(cfg | {"on_bad_dataset": "skip"}, known)
    assert sae.open_latents(found["good"].path).shape == (9, F)
    with pytest.raises(BadInput, match="row 1025 is not finite"):
        sae.open_latents(found["bad"].path)


def test_a_row_of_zeros_has_no_norm_to_rescale(tmp_path):
    """It would become NaN, on which no latent fires."""
    folder = save_saelens(
        tmp_path / "sae", parameters(), normalize_activations="constant_norm_rescale"
    )
    x = rows(1030)
    x[1026] = 0
    with pytest.raises(ActprobeError, match=r"row 1026 is all zeros: its norm cannot be rescaled"):
        encode(config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, {"a": x}))


def test_tombstones_of_activations_pass(tmp_path, folder):
    [t] = activations(tmp_path, {"a": rows(3)})
    store.publish([t.path], [store.write_bad(t.path, t.record, "a.csv: empty")])
    cfg = config(tmp_path, {"s": {"source": str(folder)}}) | {"on_bad_dataset": "skip"}
    with pytest.raises(BadInput, match=r"a\.csv: empty"):
        sae.open_latents(encode(cfg, [t])["a"].path)


def test_a_damaged_sae_is_named_for_every_dataset(tmp_path, folder):
    known = activations(tmp_path, {"a": rows(3), "b": rows(4)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    planned = targets(cfg, known)
    (folder / "sae_weights.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0 {}")
    with pytest.raises(ActprobeError, match=r"2 of 2 targets .*\n.*sae_weights\.safetensors"):
        sae.run(batch(planned["latents"]), cfg, 1)


def test_an_sae_that_is_replaced_after_the_plan_is_refused(tmp_path, folder):
    known = activations(tmp_path, {"a": rows(3)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    planned = targets(cfg, known)["latents"]
    save_saelens(folder, parameters(seed=5), model_name="tiny")
    with pytest.raises(ActprobeError, match=r"saes\.s: .* was changed after the plan was made"):
        sae.run(batch(planned), cfg, 1)
    assert not Path(planned[0].path).exists()
    encode(cfg, known)


@pytest.mark.parametrize(
    ("b_enc", "message"), [(-99, "no latent fires on any row"), (99, "100 % of the latents fire")]
)
def test_empty_and_dense_codes_are_warned_of(tmp_path, caplog, b_enc, message):
    p = parameters()
    p["b_enc"][:] = b_enc
    folder = save_saelens(tmp_path / "sae", p)
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    with caplog.at_level(logging.WARNING):
        t = encode(cfg, activations(tmp_path, {"a": rows(30)}))["a"]
    assert re.search(f"s on a: {message}", caplog.text)
    assert facts(t)["warnings"][0].startswith(message)
    assert sae.open_latents(t.path).shape == (30, F)


def test_too_little_memory_is_said_with_what_is_needed(tmp_path, folder):
    cfg = config(tmp_path, {"s": {"source": str(folder)}}, max_memory=10**8)
    with pytest.raises(ConfigError, match=r"max_memory: 100 MB; .* needs at least \d+ MB"):
        encode(cfg, activations(tmp_path, {"a": rows(3)}))


# -- planning


def test_configs_are_checked(tmp_path, folder):
    known = activations(tmp_path, {"a": rows(3)})
    for change, message in {
        "model": (r"saes\.s: unknown model 'x'"),
        "site": (r"saes\.s: no activations of m at site 'x'"),
        "position": (r"saes\.s: no position 'x'; m/resid_post\.4 is kept at mean"),
    }.items():
        cfg = config(tmp_path, {"s": {"source": str(folder), change: "x"}})
        with pytest.raises(ConfigError, match=message):
            targets(cfg, known)
    cfg = config(tmp_path, {"s": {"source": str(folder), "datasets": ["x*"]}})
    with pytest.raises(
        ConfigError, match=r"saes\.s: no dataset with these activations matches 'x\*'"
    ):
        targets(cfg, known)
    cfg = config(tmp_path, {"s": {"train": {"width": 32, "k": 4}}})
    with pytest.raises(
        ConfigError, match=r"needs activations of m/resid_post\.4 at position tokens"
    ):
        targets(cfg, known)


# -- memory


LIMITED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.path.insert(0, sys.argv[2])
from actprobe.cache import jobs
from actprobe.cache.plan import thaw
from actprobe.sae.latents_stage import run
plan = thaw(sys.argv[3])
run(plan.batches[0], plan.config, 1)
# Not ru_maxrss, which a child inherits from the process that started it.
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def test_a_million_latents_under_a_hard_limit(tmp_path):
    """2^20 latents, dense codes of 3,000 rows would be 12 GB; the address space is 1.2 GiB."""
    rng, d, width = np.random.default_rng(0), 8, 1 << 20
    p = {"W_enc": (rng.standard_normal((d, width), np.float32) / np.float32(d**0.5)),
         "b_enc": np.zeros(width, np.float32), "b_dec": np.zeros(d, np.float32),
         "W_dec": np.zeros((width, d), np.float32),
         "threshold": np.full(width, 3.5, np.float32)}  # fmt: skip
    folder = save_saelens(tmp_path / "sae", p, architecture="jumprelu")
    xs = {name: rows(1000, d=d, seed=ord(name)) for name in "abc"}
    cfg = config(tmp_path, {"s": {"source": str(folder)}}, max_memory=600 * 10**6)
    planned = targets(cfg, activations(tmp_path, xs))["latents"]
    by_path = {t.path: t for t in planned}
    todo = plan.freeze(plan.Plan(cfg, by_path, [], {}, {}, [batch(planned)]), tmp_path)
    out = subprocess.run(
        [sys.executable, "-c", LIMITED, str(1200 << 20), str(Path(__file__).parent), str(todo)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    assert int(out.stdout) * 1024 <= 600 * 10**6
    z = sae.open_latents(planned[0].path)
    assert z.shape == (1000, width) and 100 < z.l0.mean() < 5000
    live = z.columns(z.indices[:3])
    assert np.array_equal(live[0], z.data[:3].astype(float))


# -- golden


@pytest.mark.parametrize("name", ["standard", "jumprelu", "gated", "topk", "abstopk"])
def test_golden_values(tmp_path, name):
    """Changed output needs a new stage version, or old files would pass for new ones."""
    more = {"k": K} if "topk" in name else {}
    folder = save_saelens(tmp_path / "sae", parameters(name), architecture=name, **more)
    t = encode(
        config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, {"a": rows(12)})
    )
    z = sae.open_latents(t["a"].path)
    golden = json.loads(GOLDEN.read_text())
    message = f"{name} changed: raise VERSION in sae/targets.py, update tests/golden"
    assert golden["version"] == sae.VERSION, (
        "the stage version changed: write the new values and version to tests/golden"
    )
    expected = golden["values"][name]
    assert z.l0.tolist() == expected["l0"], message
    assert z.indices[::7].tolist() == expected["latents"], message
    np.testing.assert_allclose(z.data[::7], expected["values"], rtol=1e-4, err_msg=message)
