"""Chunks of a dump become ordinary artefacts; what does not fit together is refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import resource
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import torch
from dumps_cases import assembled, config, plan_of
from safetensors.numpy import save_file
from scipy.sparse import csr_array
from texts_inputs import hand_made

from actprobe import models
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.cache.plan import Batch, Target
from actprobe.config import resolve
from actprobe.dumps import assemble, digests, lockfile, windows
from actprobe.dumps.targets import VERSION
from actprobe.dumps.windows import tokens_csr
from actprobe.files import open_arrays

ROOT = Path(__file__).resolve().parents[1]


def save(path: Path, content: Any) -> None:
    if path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        with h5py.File(path, "w") as f:
            for name, a in content.items():
                f[name] = a


def dump(folder: Path, files: Mapping[str, Any], **entry: Any) -> Target:
    """A dump whose files are in the cache already, as its only assembled target."""
    folder.mkdir(exist_ok=True)
    wanted = config(folder, {"d": {"source": {"run": "team/project/run1"}, **entry}})
    locked = []
    for name, content in files.items():
        plain = folder / Path(name).name
        save(plain, content)
        digest = digests.file_digest(plain, "md5")
        into = Path(digests.raw_path(wanted["cache_dir"], "d", "md5", digest, name))
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_bytes(plain.read_bytes())
        locked.append(
            lockfile.LockedFile(name, plain.stat().st_size, "md5", digest, "team/project/run1")
        )
    lockfile.write(
        lockfile.Lock(lockfile.config_source(wanted, "d"), {}, tuple(locked)), folder / "d.json"
    )
    [t] = assembled(plan_of(wanted))
    return t


def make(t: Target, on_bad: str = "stop") -> Path:
    cfg = resolve({"experiment": "e", "on_bad_dataset": on_bad})
    assemble.run(Batch("assemble_d", "assemble", "d", (t,)), cfg, 1)
    return Path(t.path)


def refused(t: Target, message: str) -> None:
    with pytest.raises(ActprobeError, match=message):
        make(t)
    assert not Path(t.path).exists()


def chunks(x: np.ndarray, n: int, suffix: str = "npy") -> dict[str, Any]:
    """x cut into n pieces of rows, named as chunks of a site."""
    pieces = np.array_split(x, n)
    wrap = (lambda a: {"acts": a}) if suffix in ("safetensors", "h5") else lambda a: a
    if suffix == "pt":
        wrap = torch.tensor
    return {f"resid_post.3/chunk_{i}.{suffix}": wrap(p) for i, p in enumerate(pieces)}


X = np.random.default_rng(0).standard_normal((60, 7)).astype(np.float32)
WORDS = [[f"w{(i * j) % 5}" for j in range(4)] for i in range(15)]


@pytest.mark.parametrize("suffix", ["pt", "npy", "safetensors", "h5"])
def test_chunked_vectors_of_one_row_per_text(tmp_path, suffix):
    t = dump(tmp_path, chunks(X, 11, suffix), model="m", dataset="ds", position="last")
    assert t.path.startswith(f"{tmp_path}/cache/activations/m/ds/resid_post.3.last.")
    path = make(t)
    with models.open_activations(path, t.key) as a:
        assert np.array_equal(a[:], X)
        assert a.offsets is None
        assert a.n_tokens.tolist() == [-1] * 60
    header = store.verify(path)
    facts = header["facts"]["chunks"]
    assert [c["file"] for c in facts] == [f"resid_post.3/chunk_{i}.{suffix}" for i in range(11)]
    assert facts[0]["rows"] == [0, 6]
    assert facts[-1]["rows"] == [55, 60]
    assert header["spec"]["chunks"] == [f"md5:{c['digest']}" for c in facts]


@pytest.mark.parametrize("shape", [(15, 4, 7), (60, 7)])
def test_tokens_with_their_strings(tmp_path, shape):
    files = {**chunks(X.reshape(shape), 3, "pt"), "all_token_ids.pt": WORDS}
    path = make(dump(tmp_path, files))
    with models.open_activations(path) as a:
        assert np.array_equal(a[:], X)
        assert a.offsets is not None
        assert a.offsets.tolist() == list(range(0, 61, 4))
        assert a.n_tokens.tolist() == [4] * 15
        assert a.token_ids is not None
        assert a.token_ids.max() == 4
    with store.open_h5(path) as f:
        ends, text = f["vocabulary_offsets"][:], f["vocabulary"][:].tobytes()
        words = [text[a:b].decode() for a, b in itertools.pairwise(ends)]
        assert [words[i] for i in f["token_ids"][:]] == [w for row in WORDS for w in row]


def test_tokens_of_rows_of_different_lengths(tmp_path):
    ids = [[1, 2, 3], [], [4] * 57]
    path = make(dump(tmp_path, {**chunks(X, 2), "x/all_token_ids.pt": ids}))
    with models.open_activations(path) as a:
        assert a.offsets is not None and a.offsets.tolist() == [0, 3, 3, 60]
        assert a.token_ids is not None and a.token_ids[2:4].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("dtype", "kept", "attribute"),
    [
        (torch.float16, np.float16, None),
        (torch.bfloat16, np.uint16, "bfloat16"),
        (torch.float64, np.float32, None),
    ],
)
def test_half_precision_is_kept_and_double_becomes_single(tmp_path, dtype, kept, attribute):
    x = torch.tensor(X).to(dtype)
    path = make(dump(tmp_path, {"resid_pre.0.pt": {"x": x}}, position="last"))
    with h5py.File(path, "r", locking=False) as f:
        assert f["x"].dtype == kept
        assert f["x"].attrs.get("dtype") == attribute
    assert np.array_equal(models.load_activations(path), x.float().numpy())


def test_slices_smaller_than_chunks_change_nothing(tmp_path, monkeypatch):
    t = dump(tmp_path, chunks(X, 3), position="last")
    whole = make(t).read_bytes()
    Path(t.path).unlink()
    monkeypatch.setattr(assemble, "SLICE", 4 * 7 * 4)
    make(t)
    assert np.array_equal(models.load_activations(t.path), X)
    assert len(Path(t.path).read_bytes()) >= len(whole)


def test_an_interrupted_assembly_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "SLICE", 4 * 7 * 4)
    t = dump(tmp_path, chunks(X, 3), position="last")
    expected = make(t).read_bytes()
    Path(t.path).unlink()
    marked = []

    def mark(part: Any, *units: int, real=store.Part.mark) -> None:
        if len(marked) == 5:
            raise KeyboardInterrupt
        marked.append(units)
        real(part, *units)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(store.Part, "mark", mark)
        make(t)
    store.release(store.part_path(t.path))
    monkeypatch.setattr(
        store.Part, "mark", lambda p, *u, real=store.Part.mark: marked.append(u) or real(p, *u)
    )
    make(t)
    assert [u for (u,) in marked] == list(range(16))
    assert Path(t.path).read_bytes() == expected


@pytest.fixture
def few_descriptors():
    """About 30 more descriptors than are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("suffix", ["npy", "pt", "h5", "safetensors"])
def test_more_chunks_than_a_process_may_open(tmp_path, suffix, few_descriptors):
    t = dump(tmp_path, chunks(X, 60, suffix), position="last")
    assert np.array_equal(models.load_activations(make(t)), X)


@pytest.mark.parametrize("suffix", ["npy", "pt", "h5", "safetensors"])
def test_no_descriptor_left_is_not_the_fault_of_a_file(tmp_path, suffix, few_descriptors):
    path = tmp_path / f"a.{suffix}"
    save(path, next(iter(chunks(X, 1, suffix).values())))
    for free in range(3):
        with ExitStack() as stack:
            taken: list[Any] = []
            with contextlib.suppress(OSError):
                while True:
                    taken.append(stack.enter_context(open(os.devnull)))
            for f in taken[:free]:
                f.close()
            with contextlib.suppress(OSError), open_arrays(path, suffix) as found:
                assert len(found.arrays) == 1


def test_chunks_that_differ_are_named(tmp_path):
    files = chunks(X, 3)
    files["resid_post.3/chunk_1.npy"] = X[:5, :6]
    refused(dump(tmp_path, files), r"chunk_1\.npy holds \(5, 6\) float32")
    files["resid_post.3/chunk_1.npy"] = X[:5].astype(np.float16)
    refused(dump(tmp_path, files), r"chunk_1\.npy holds \(5, 7\) float16")
    files["resid_post.3/chunk_1.npy"] = X[:5].astype(np.int64)
    refused(dump(tmp_path, files), "int64; expected floats")
    files["resid_post.3/chunk_1.npy"] = X[0]
    refused(dump(tmp_path, files), r"\(7,\) float32; expected floats")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e39])
def test_values_that_are_no_numbers_are_named_by_row(tmp_path, value):
    x = X.astype(np.float64)
    x[41, 2] = value
    refused(dump(tmp_path, chunks(x, 2), position="last"), r"chunk_1\.npy: row 11 holds NaN")


def test_a_file_with_several_arrays_needs_the_name(tmp_path):
    files = {"resid_pre.0.pt": {"x": torch.tensor(X), "y": torch.tensor(X[:, :2])}}
    refused(
        dump(tmp_path, files, position="last"),
        r"'x' \(60, 7\) float32, 'y' \(60, 2\) float32; expected a single one",
    )
    refused(dump(tmp_path, files, position="last", array="z"), "expected one called 'z'")
    path = make(dump(tmp_path, files, position="last", array="y"))
    assert models.load_activations(path).shape == (60, 2)


def test_rows_that_do_not_fit_the_tokens(tmp_path):
    refused(dump(tmp_path, chunks(X, 2)), "`tokens` names no file that cuts them")
    short = {"all_token_ids.pt": WORDS[:-1]}
    refused(dump(tmp_path, {**chunks(X, 2), **short}), "60 rows, but 56 tokens")
    three = X.reshape(15, 4, 7)
    refused(dump(tmp_path, {**chunks(three, 2), **short}), "15 windows of 4 tokens, but 56")
    refused(dump(tmp_path, chunks(three, 2), position="last"), "set position: tokens")
    both = {**chunks(X, 2), "all_token_ids.pt": WORDS}
    refused(dump(tmp_path, both, position="last"), "60 rows, but tokens of 15")


MASK = np.random.default_rng(1).random((15, 4)) < 0.7


def masked(**more: Any) -> dict[str, Any]:
    """Tokens with padding, the first row without a single token."""
    MASK[0] = False
    ids = np.where(MASK, np.arange(60).reshape(15, 4), -1)
    if more.get("negative"):
        return {"all_token_ids.pt": torch.tensor(ids)}
    content = {"input_ids": torch.arange(60).reshape(15, 4), "attention_mask": torch.tensor(MASK)}
    return {"all_token_ids.pt": content}


@pytest.mark.parametrize("shape", [(15, 4, 7), (60, 7)])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("size", [1 << 22, 4 * 7 * 4])
def test_f_padding_is_left_out_of_the_rows(tmp_path, monkeypatch, shape, negative, size):
    monkeypatch.setattr(assemble, "SLICE", size)
    tokens = masked(negative=negative)
    x = np.where(MASK.reshape(60, 1), X, np.nan)  # padding may hold anything
    path = make(dump(tmp_path, {**chunks(x.reshape(shape), 3, "pt"), **tokens}))
    kept = MASK.reshape(-1)
    with models.open_activations(path) as a:
        assert np.array_equal(a[:], X[kept])
        assert a.offsets is not None and a.token_ids is not None
        assert np.array_equal(np.diff(a.offsets), MASK.sum(axis=1))
        assert np.array_equal(a.token_ids, np.flatnonzero(kept))
    last = store.verify(path)["facts"]["chunks"][-1]["rows"]
    assert last[1] == kept.sum()


def test_f_rows_that_were_stored_without_their_padding(tmp_path):
    path = make(dump(tmp_path, {**chunks(X[MASK.reshape(-1)], 3), **masked()}))
    assert np.array_equal(models.load_activations(path), X[MASK.reshape(-1)])
    refused(
        dump(tmp_path / "b", {**chunks(X[:50], 3), **masked()}), r"50 rows, but \d+ tokens \(60 "
    )


def test_f_one_file_of_tokens_for_each_chunk(tmp_path):
    words = [WORDS[:5], WORDS[5:10], WORDS[10:]]
    tokens = {f"chunk_{i}_all_token_ids.pt": w for i, w in enumerate(words)}
    path = make(dump(tmp_path, {**chunks(X.reshape(15, 4, 7), 3), **tokens}))
    with models.open_activations(path) as a:
        assert a.offsets is not None and a.offsets.tolist() == list(range(0, 61, 4))
    assert len(store.verify(path)["spec"]["tokens"]) == 3
    wrong = dict(zip(tokens, [WORDS[:6], WORDS[6:10], WORDS[10:]], strict=True))
    refused(dump(tmp_path / "b", {**chunks(X.reshape(15, 4, 7), 3), **wrong}),
            r"chunk_0\.npy has 5 rows, its tokens 6")  # fmt: skip
    with pytest.raises(ConfigError, match=r"matches 3 files, but resid_post\.3 has 2 chunks"):
        dump(tmp_path / "c", {**chunks(X.reshape(15, 4, 7), 2), **tokens})


def test_f_the_same_tokens_beside_every_chunk_are_one_file(tmp_path):
    tokens = {f"{i}/all_token_ids.pt": WORDS for i in range(2)}
    t = dump(tmp_path, {**chunks(X, 3), **tokens})
    assert len(t.args.tokens) == 1 and make(t)


def test_f_ids_in_one_dimension(tmp_path, caplog):
    ids = {"all_token_ids.pt": torch.arange(60)}
    path = make(dump(tmp_path, {**chunks(X.reshape(15, 4, 7), 2), **ids}))
    with models.open_activations(path) as a:
        assert a.offsets is not None and a.offsets.tolist() == list(range(0, 61, 4))
    path = make(dump(tmp_path / "b", {**chunks(X, 2), **ids}))
    with models.open_activations(path) as a:
        assert a.offsets is not None and a.offsets.tolist() == [0, 60]
    assert "each file counts as one text" in caplog.text


def test_f_what_lies_beside_the_activations_is_told_and_ignored(tmp_path):
    content = {
        "acts": torch.tensor(X),
        "mask": torch.ones(60, dtype=torch.bool),
        "labels": torch.arange(60),
        "texts": ["a"] * 60,
        "codes": torch.eye(3).to_sparse(),
    }
    path = make(dump(tmp_path, {"resid_pre.0.pt": content}, position="last"))
    assert np.array_equal(models.load_activations(path), X)
    assert store.verify(path)["facts"]["ignored"] == [
        "codes: a sparse_coo tensor of float32 on cpu", "labels int64", "mask bool",
        "texts: list of 60 str",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_f_float8_becomes_float32(tmp_path, dtype):
    x = torch.tensor(X).to(dtype)
    path = make(dump(tmp_path, {"resid_pre.0.pt": x}, position="last"))
    assert np.array_equal(models.load_activations(path), x.float().numpy())


def test_f_views_and_old_files(tmp_path):
    x = torch.tensor(X.T.copy()).T
    path = make(dump(tmp_path, {"resid_pre.0.pt": {"x": torch.nn.Parameter(x)}}, position="last"))
    assert np.array_equal(models.load_activations(path), X)


def test_rows_must_be_as_many_as_the_texts_of_their_dataset(tmp_path):
    wanted = config(
        tmp_path,
        {"d": {"source": {"run": "t/p/r"}, "dataset": "ds", "position": "last"}},
    )
    np.save(tmp_path / "x.npy", X)
    digest = digests.file_digest(tmp_path / "x.npy", "md5")
    locked = lockfile.LockedFile("embed/hook_embed.npy", 1808, "md5", digest, "t/p/r")
    lock = lockfile.Lock(lockfile.config_source(wanted, "d"), {}, (locked,))
    lockfile.write(lock, tmp_path / "d.json")
    texts = tmp_path / "texts.parquet"
    spec = {"stage": "texts"}
    store.publish([texts], [store.write_table(texts, pa.table({"n": [1]}), spec, {"n": 61})])
    known = {"texts": [replace(hand_made(tmp_path, "ds", "r"), path=str(texts))]}
    [t] = assembled(plan_of(wanted, known))
    raw = Path(t.args.chunks[0].path)
    raw.parent.mkdir(parents=True)
    raw.write_bytes((tmp_path / "x.npy").read_bytes())
    assert t.spec.texts == "r"
    refused(t, "60 rows, but dataset ds has 61 texts")


def test_a_damaged_chunk_is_set_aside_and_only_it_is_fetched_again(tmp_path):
    t = dump(tmp_path, chunks(X, 3), position="last")
    raw = Path(t.args.chunks[1].path)
    content = bytearray(raw.read_bytes())
    content[-5] ^= 1
    raw.write_bytes(content)
    refused(t, r"chunk_1\.npy: .* md5 .* expected .* run again to fetch it")
    assert Path(f"{raw}.bad").exists()
    assert not raw.exists()
    assert all(Path(c.path).exists() for c in t.args.chunks if c.path != str(raw))


def test_a_dump_that_cannot_be_used_is_skipped_when_asked(tmp_path):
    t = dump(tmp_path, chunks(X, 2))
    make(t, on_bad="skip")
    with pytest.raises(BadInput, match="cuts them"), models.open_activations(t.path):
        pass


# --- SAE codes per window and latent


def codes(n_windows: int, length: int, width: int, seed: int = 0) -> np.ndarray:
    """Sparse float16 codes [windows, length, width]; some windows and latents stay silent."""
    chance = np.random.default_rng(seed)
    z = chance.random((n_windows, length, width)) * (chance.random((n_windows, 1, width)) < 0.3)
    z *= chance.random(z.shape) < 0.4
    z[n_windows // 3] = 0
    return z.astype(np.float16)


def as_windows(z: np.ndarray, first: int = 0) -> dict[str, torch.Tensor]:
    """Codes [W, L, F] in the form of a dump."""
    window, latent = np.nonzero(z.any(axis=1))
    return {
        "nonzero_activations": torch.tensor(z[window, :, latent]),
        "data_indices": torch.tensor(window + first),
        "neuron_indices": torch.tensor(latent),
    }


def read_csr(path: Path) -> csr_array:
    with store.open_h5(path) as f:
        parts = f["data"][:], f["indices"][:], f["indptr"][:]
        assert np.array_equal(f["l0"][:], np.diff(parts[2]))
        return csr_array(parts, shape=tuple(f["shape"][:]))


@pytest.mark.parametrize("per_slice", [1 << 20, 64, 1])
def test_windows_become_token_level_latents(tmp_path, monkeypatch, per_slice):
    monkeypatch.setattr(windows, "_VALUES", per_slice)
    z = codes(15, 4, 9)
    files = {
        "activation_data/blocks--2--hook_resid_pre.pt": as_windows(z),
        "activation_data/all_token_ids.pt": WORDS,
    }
    t = dump(tmp_path, files, content="latents", dataset="ds", width=12)
    assert t.path.startswith(f"{tmp_path}/cache/latents/d.resid_pre.2/ds.")
    got = read_csr(make(t))
    assert got.shape == (60, 12)
    assert np.array_equal(got.toarray()[:, :9], z.reshape(60, 9).astype(np.float32))
    assert got.has_canonical_format
    with store.open_h5(t.path) as f:
        assert f["offsets"][:].tolist() == list(range(0, 61, 4))


@pytest.mark.parametrize("per_slice", [1 << 20, 8])
def test_f_padding_is_left_out_of_windows(tmp_path, monkeypatch, per_slice):
    monkeypatch.setattr(windows, "_VALUES", per_slice)
    z, tokens, kept = codes(15, 4, 9), masked(), MASK.reshape(-1)
    z[~MASK] = 3  # what an SAE says of padding
    t = dump(tmp_path, {"resid_pre.2.pt": as_windows(z), **tokens}, content="latents", width=9)
    got = read_csr(make(t))
    assert np.array_equal(got.toarray(), z.reshape(60, 9)[kept].astype(np.float32))
    with store.open_h5(t.path) as f:
        assert np.array_equal(np.diff(f["offsets"][:]), MASK.sum(axis=1))
        assert np.array_equal(f["token_ids"][:], np.flatnonzero(kept))


def test_windows_in_several_chunks_without_tokens(tmp_path):
    z = codes(20, 4, 9)
    files = {
        "resid_pre.1.chunk_9.pt": as_windows(z[:8]),
        "resid_pre.1.chunk_10.pt": as_windows(z[8:], first=8),
    }
    got = read_csr(make(dump(tmp_path, files, content="latents")))
    assert np.array_equal(got.toarray(), z.reshape(80, 9).astype(np.float32))


def bad_windows() -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    good = as_windows(codes(6, 4, 5))

    def but(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**good, **changed}

    window, latent = good["data_indices"], good["neuron_indices"]
    values = good["nonzero_activations"]
    infinite = values.clone()
    infinite[3, 1] = torch.inf
    twice = window.clone()
    twice[1], latent_twice = twice[0], latent.clone()
    latent_twice[1] = latent_twice[0]
    return {
        "unsorted": (but(data_indices=window.flip(0)), "not in order of window and latent"),
        "repeated": (but(data_indices=twice, neuron_indices=latent_twice), "not in order"),
        "negative": (but(neuron_indices=latent - 1), "latents -1 to"),
        "far": (but(data_indices=window + 10**9), "windows without a code"),
        "scattered": (
            but(data_indices=torch.arange(len(window)) * 90_000),
            "windows without a code",
        ),
        "wrapped": (
            but(data_indices=torch.tensor([0, 2**62, -(2**63), *window[3:].tolist()])),
            "not in order",
        ),
        "huge": (but(neuron_indices=latent + 2**31), "latents 2147483648"),
        "infinite": (but(nonzero_activations=infinite), "row 3 holds NaN"),
        "short": (but(data_indices=window[1:].clone()), "expected integers"),
        "floats": (but(data_indices=window.float()), "expected integers"),
        "flat": (but(nonzero_activations=values[0].clone()), r"expected floats \[n, L\]"),
        "missing": (
            {k: v for k, v in good.items() if k != "data_indices"},
            "no array 'data_indices'",
        ),
    }


@pytest.mark.parametrize("case", bad_windows())
def test_windows_that_cannot_be_right(tmp_path, case):
    content, message = bad_windows()[case]
    refused(dump(tmp_path, {"resid_pre.1.pt": content}, content="latents"), message)


def test_windows_that_do_not_fit_tokens_or_width(tmp_path):
    files = {"resid_pre.1.pt": as_windows(codes(16, 4, 9)), "all_token_ids.pt": WORDS}
    refused(dump(tmp_path, files, content="latents"), "do not fit the tokens: 60 in 15 windows")
    del files["all_token_ids.pt"]
    refused(dump(tmp_path, files, content="latents", width=3), "latent 8, expected fewer than 3")


def test_tokens_csr_covers_silent_windows():
    data, indices, counts = tokens_csr(
        np.array([[0, 2], [3, 0]], np.float32), np.array([1, 1]), np.array([4, 7]), 0, 2
    )
    assert (data.tolist(), indices.tolist()) == ([3, 2], [7, 4])
    assert counts.tolist() == [0, 0, 1, 1, 0, 0]


def test_golden_digest_of_the_assembled_content(tmp_path):
    """Change what assembly writes and VERSION in dumps/targets.py must be raised."""
    h = hashlib.sha256()
    z = codes(15, 4, 9)
    cases = [
        ({**chunks(X, 3), "all_token_ids.pt": WORDS}, {}),
        ({"resid_pre.1.pt": as_windows(z), "all_token_ids.pt": WORDS}, {"content": "latents"}),
    ]
    for i, (files, entry) in enumerate(cases):
        (tmp_path / str(i)).mkdir()
        with store.open_h5(make(dump(tmp_path / str(i), files, **entry))) as f:
            for name in sorted(set(f) - {"header", "done"}):
                h.update(f"{name} {f[name].dtype.str} {f[name].shape}".encode())
                values = f[name][:]
                if values.dtype.kind == "f":
                    values = np.array([f"{v:.3e}" for v in values.ravel()])
                h.update(values.astype("S" if values.dtype.kind == "U" else values.dtype).tobytes())
    golden = json.loads((ROOT / "golden" / "dumps.json").read_text())["assemble"]
    assert {"version": VERSION, "digest": h.hexdigest()} == golden, (
        "the content of assembled artefacts changed: raise VERSION in actprobe/dumps/targets.py "
        "and put the new digest into tests/golden/dumps.json"
    )
