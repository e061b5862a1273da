"""A dump through the whole workflow: lock, plan, fetch, assemble, look at it, change it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from wandb_server import SIGNATURE, Fault, Server

from actprobe.cache import store
from actprobe.sae import open_latents

KEY = "local-" + "fedcba9876543210" * 3
X = np.random.default_rng(0).standard_normal((160, 8, 64)).astype(np.float32)
WORDS = [[f"w{(i * t) % 11}" for t in range(8)] for i in range(160)]
NOTHING = "Nothing to be done"


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def files(x: np.ndarray) -> dict[str, bytes]:
    """Eight chunks of one site and the tokens, as a run would have kept them."""
    chunks = [saved({"acts": torch.tensor(x[i * 20 : i * 20 + 20])}) for i in range(8)]
    named = {f"activation_data/resid_post.1.chunk_{i}.pt": c for i, c in enumerate(chunks)}
    return {**named, "activation_data/all_token_ids.pt": saved(WORDS)}


@pytest.fixture
def server():
    with Server() as made:
        made.add_artifact("team/project/acts", files(X))
        yield made


@pytest.fixture
def project(empty, server, tmp_path, monkeypatch):
    """A project with one locked dump and pages of its neurons; nothing was run yet."""
    empty.config = {
        "experiment": "toy",
        "datasets": [],
        "dumps": {
            "acts": {
                "source": {"artifacts": ["team/project/acts:latest"]},
                "lock": "locks/acts.json",
                "model": "m",
                "dataset": "windows",
                "tries": 2,
            }
        },
        "top_contexts": [{"sources": ["m/*"], "latents": 5, "k": 3}],
    }
    home = tmp_path / "home"
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(home))
    lock(empty)
    server.reset()
    return empty


def lock(project) -> None:
    project.command()  # writes the config
    project.actprobe("lock", "acts", "--configfile", "config.yaml")


def assembled(project) -> np.ndarray:
    [path] = sorted(project.cached("activations"), key=os.path.getmtime)[-1:]
    with h5py.File(path, "r", locking=False) as f:
        return f["x"][:]


def holding(folder: Path, text: str) -> list[Path]:
    return [
        p
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink() and text.encode() in p.read_bytes()
    ]


def test_a_dump_is_planned_offline_fetched_once_and_looked_at(
    project, server, monkeypatch, tmp_path
):
    with monkeypatch.context() as offline:
        offline.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        assert project.plan() == {"dumps": 9, "assemble": 1, "top_contexts": 1}
        said = project.snakemake("-n")
        assert "dumps" in said and "assemble" in said
    assert server.reset().requests == 0
    project.snakemake()
    assert server.count.requests == 9
    assert np.array_equal(assembled(project), X.reshape(-1, 64))
    page = project.folder / "results/toy/contexts/m.resid_post.1.tokens.windows.html"
    assert page.read_text().count("<h2") == 5
    with monkeypatch.context() as offline:
        offline.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        assert NOTHING in project.snakemake()
    assert "0 damaged" in project.actprobe("verify", "cache")
    # Neither the key nor a signed URL is in any file that the run left, logs included.
    assert holding(tmp_path, KEY) == []
    assert holding(tmp_path, SIGNATURE) == []
    assert server.count.leaks == 0


def test_an_sae_is_trained_on_a_dump_encodes_it_and_is_looked_at(project):
    """From chunks to the contexts of latents, without a model."""
    project.config["saes"] = {
        "dumped": {
            "model": "m", "site": "resid_post.1", "position": "tokens",
            "train": {"width": 96, "k": 4, "epochs": 1, "batch_size": 64},
        }
    }  # fmt: skip
    project.config["top_contexts"] = [{"sources": ["dumped"], "latents": 7, "k": 3, "window": 2}]
    wanted = {"dumps": 9, "assemble": 1, "saes": 1, "latents": 1, "top_contexts": 1}
    assert project.plan() == wanted
    project.snakemake()
    [path] = project.cached("latents")
    codes = open_latents(path).to_scipy().toarray()
    assert codes.shape == (160 * 8, 96) and (np.count_nonzero(codes, axis=1) <= 4).all()
    [path] = project.cached("top_contexts")
    rows = store.read_table(path).to_pylist()
    assert len({r["latent"] for r in rows}) == 7
    words = [w for text in WORDS for w in text]
    for r in (r for r in rows if r["rank"] == min(r["rank"] for r in rows)):
        strongest = int(codes[:, r["latent"]].argmax())
        assert r["value"] == codes[strongest, r["latent"]]
        assert divmod(strongest, 8) == (r["example"], r["position"])
        assert r["tokens"][r["peak"]] == words[strongest]
    page = project.folder / "results/toy/contexts/dumped.windows.html"
    assert page.read_text().count("<h2") == 7
    assert NOTHING in project.snakemake()


def test_a_new_version_moves_one_chunk_and_remakes_what_depends_on_it(project, server):
    project.snakemake()
    before = project.snapshot()
    y = X.copy()
    y[100:120] += 1
    server.add_artifact("team/project/acts", files(y))
    assert project.plan() == {}
    outdated = project.actprobe("lock", "--check", "acts", "--configfile", "config.yaml", ok=False)
    assert "resid_post.1.chunk_5.pt: changed" in outdated
    lock(project)
    assert project.plan() == {"dumps": 1, "assemble": 1, "top_contexts": 1}
    said = project.snakemake("-n")
    assert "stale" in said
    server.reset()
    project.snakemake()
    assert list(server.count.files) == ["activation_data/resid_post.1.chunk_5.pt"]
    assert np.array_equal(assembled(project), y.reshape(-1, 64))
    after = project.snapshot()
    assert {k: after[k] for k in before} == before
    assert NOTHING in project.snakemake("-n")


def test_a_missing_file_stops_what_needs_it_and_nothing_else(project, server):
    server.faults.append(Fault("status", "chunk_3", times=99, status=404))
    said = project.snakemake(ok=False)
    assert "chunk_3.pt: HTTP 404" in said
    assert SIGNATURE not in said and KEY not in said
    assert project.plan()["dumps"] == 9  # eight of them only to be put in place
    server.faults.clear()
    server.reset()
    project.snakemake()
    assert list(server.count.files) == ["activation_data/resid_post.1.chunk_3.pt"]
    assert np.array_equal(assembled(project), X.reshape(-1, 64))


def test_a_run_is_followed_when_asked_and_its_results_are_exported(project, server, tmp_path):
    project.config["wandb"] = {"enabled": True, "project": "probing"}
    project.snakemake()
    sent = json.dumps(server.service.streamed)
    assert all(f"progress/{stage}" in sent for stage in ("dumps", "assemble", "top_contexts"))
    said = project.actprobe("export", "--wandb", "--configfile", "config.yaml")
    assert "team/probing/" in said
    [results] = [a for a in server.service.artifacts if a.type == "results"]
    assert list(results.entries) == ["contexts/m.resid_post.1.tokens.windows.html"]
    assert len(server.service.runs) == 2
    assert server.count.unknown == []
    assert holding(tmp_path, KEY) == []


def test_a_damaged_file_is_found_by_verify_and_replaced_alone(project, server):
    project.snakemake()
    [chosen] = [p for p in project.cached("dumps") if p.stat().st_size > 8000][:1]
    content = bytearray(chosen.read_bytes())
    content[5000] ^= 1
    chosen.write_bytes(content)
    said = project.actprobe("verify", "--set-aside", "cache", ok=False)
    assert f"damaged: cache/dumps/acts/{chosen.name}: md5" in said
    assert "1 damaged" in said
    # The assembled file is whole, so nothing needs the chunk; asked for, only it is fetched.
    server.reset()
    project.snakemake("dumps")
    assert server.count.requests == 1
    assert "0 damaged" in project.actprobe("verify", "cache")


def test_killed_runs_go_on_and_the_key_is_in_no_command_line(project, server):
    big = np.random.default_rng(1).standard_normal((160, 8, 4096)).astype(np.float32)
    server.add_artifact("team/project/acts", files(big))
    lock(project)
    total = sum(len(c) for c in files(big).values())
    server.reset()
    server.rate = 1.5e6
    seen: set[str] = set()
    over = threading.Event()
    watcher = threading.Thread(target=watch_command_lines, args=(seen, over))
    watcher.start()
    p = subprocess.Popen(
        project.command(),
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while server.count.sent < total / 2 and p.poll() is None:
        time.sleep(0.02)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert server.count.sent < total
    project.snakemake("--unlock")
    project.snakemake()
    over.set()
    watcher.join()
    assert server.count.sent <= total + 8 * 2**20
    assert np.array_equal(assembled(project), big.reshape(-1, 4096))
    assert any("snakemake" in line for line in seen)
    assert not any(KEY in line or SIGNATURE in line for line in seen)


def watch_command_lines(seen: set[str], over: threading.Event) -> None:
    """Collect the command lines (and so the titles) of all processes of the machine."""
    while not over.wait(0.02):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    seen.add((entry / "cmdline").read_bytes().decode(errors="replace"))
                except OSError:
                    continue
