"""A dump from lock to artefact, with the real client: planned offline, moved once, repaired."""

# ruff: noqa: F401, F811
from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dumps_cases import (
    KEY,
    assembled,
    client,
    config,
    golden,
    make,
    plan_of,
    quiet_logs,
    traces,
)
from wandb_server import SIGNATURE, Fault, server

from actprobe import dumps as room
from actprobe import models
from actprobe.base.errors import ActprobeError, ConfigError, Damaged
from actprobe.cache import plan, store
from actprobe.dumps import fetch
from actprobe.experiment import upkeep

X = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)


def chunk(rows: np.ndarray) -> bytes:
    """A `.npy` file."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


CHUNKS = {f"resid_post.1/chunk_{i}.npy": chunk(X[i * 10 : i * 10 + 10]) for i in range(8)}


@pytest.fixture
def dump(client, tmp_path) -> dict[str, Any]:
    """The config of a locked dump of eight chunks."""
    client.add_artifact("team/project/acts", CHUNKS)
    entry = {
        "source": {"artifacts": ["team/project/acts:latest"]},
        "model": "m",
        "dataset": "ds",
        "position": "mean",
        "tries": 2,
    }
    wanted = config(tmp_path, {"acts": entry})
    room.lock(wanted, "acts")
    client.reset()
    return wanted


def raw(config: dict[str, Any]) -> list[Path]:
    return sorted(Path(config["cache_dir"], "dumps", "acts").glob("md5.*"))


def test_from_lock_to_activations(client, dump):
    planned = make(dump)
    assert client.count.requests == 8
    assert client.count.unknown == []
    [t] = assembled(planned)
    assert np.array_equal(models.load_activations(t.path, t.key), X)
    assert (t.args.source, t.args.site) == ("m/resid_post.1.mean", "resid_post.1")
    assert plan_of(dump).pending == {}


def test_planning_asks_nobody(client, dump, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("planning connects"))
    planned = plan_of(dump)
    assert len(planned.of("dumps")) == len(planned.of("assemble")) == 1
    assert len(planned.pending) == 9


def test_planning_needs_neither_client_nor_arrays():
    heavy = "import sys, actprobe.dumps, actprobe.contexts; print([m for m in "
    heavy += "('wandb', 'torch', 'numpy', 'h5py', 'pyarrow', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_raw_files_are_named_by_their_digest_and_checked_by_it(dump, monkeypatch):
    make(dump, ["dumps"])
    assert len(raw(dump)) == 8
    for path in raw(dump):
        assert room.is_raw(path)
        room.verify_file(path)
    path = raw(dump)[2]
    monkeypatch.chdir(path.parent)
    assert upkeep.verify([Path()], set_aside=True).damaged == {}
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match=rf"md5 \w+ \(768 bytes\), expected {path.name[4:16]}"):
        room.verify_file(path)
    assert not room.is_raw(path.parents[2] / "activations" / "m" / "a.0123456789ab.h5")


def test_a_new_version_moves_its_changed_chunk_only(client, dump):
    make(dump)
    old = {p.name for p in raw(dump)}
    y = X.copy()
    y[50:60] += 1
    changed = {**CHUNKS, "resid_post.1/chunk_5.npy": chunk(y[50:60])}
    client.add_artifact("team/project/acts", changed)
    assert plan_of(dump).pending == {}  # the lock says what counts
    room.lock(dump, "acts")
    client.reset()
    planned = plan_of(dump)
    assert [b.rule for b in planned.batches] == ["assemble_acts", "dumps_acts"]
    assert [len(b.targets) for b in planned.batches] == [1, 1]
    [t] = assembled(planned)
    assert "chunks" in planned.pending[t.path].why
    make(dump)
    seen = client.reset()
    assert (seen.requests, list(seen.files)) == (1, ["resid_post.1/chunk_5.npy"])
    assert np.array_equal(models.load_activations(t.path), y)
    assert old < {p.name for p in raw(dump)}


def test_one_missing_file_fails_the_job_by_name_and_the_others_are_kept(client, dump):
    client.faults.append(Fault("status", "chunk_5", times=99, status=404))
    with pytest.raises(ActprobeError, match=r"(?s)1 of 8 files.*chunk_5\.npy: HTTP 404") as error:
        make(dump, ["dumps"])
    assert SIGNATURE not in str(error.value)
    assert len(plan_of(dump).of("dumps")[0].targets) == 8
    client.faults.clear()
    client.reset()
    make(dump)
    assert client.reset().requests == 1
    assert len(raw(dump)) == 8


def test_b7_no_file_is_put_in_place_for_its_length(client, dump):
    """Neither by the plan, which reads no file whole, nor by the job without its digest."""
    [batch] = plan_of(dump).of("dumps")
    for t in batch.targets[:3]:
        Path(t.path).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{t.path}.verified").write_bytes(bytes(t.args.size))
    planned = plan_of(dump)
    assert {planned.states[t.path].status for t in batch.targets} == {plan.MISSING}
    plan.take_over(planned)
    assert not any(Path(t.path).exists() for t in batch.targets)
    make(dump, ["dumps"])
    for path in raw(dump):
        room.verify_file(path)
    assert client.reset().requests == 8


def test_a_damaged_file_in_the_cache_is_replaced_alone(client, dump):
    make(dump, ["dumps"])
    path = raw(dump)[3]
    path.write_bytes(path.read_bytes().replace(b"\0", b"\1", 1)[::-1])
    client.reset()
    with pytest.raises(Damaged, match="run again to fetch it"):
        make(dump, ["assemble"])
    planned = make(dump)
    assert [len(b.targets) for b in planned.of("dumps")] == [1]
    assert client.reset().requests == 1
    assert np.array_equal(models.load_activations(assembled(planned)[0].path), X)


def test_two_processes_at_once_fetch_once(client, dump, caplog):
    caplog.set_level(logging.INFO)
    client.rate = 2000.0
    planned = plan_of(dump)
    [batch] = planned.of("dumps")
    failures = []

    def work() -> None:
        try:
            fetch.run(batch, dump, 1)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert client.count.requests == 8
    assert "waiting for another process" in caplog.text


def test_the_parts_of_a_running_fetch_are_held(tmp_path):
    part = tmp_path / "dumps" / "acts" / "md5.0123456789ab.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x")
    with fetch._one_at_a_time(tmp_path / "dumps"):
        assert upkeep.delete([str(part)]) == [str(part)]
        assert part.exists()
    assert upkeep.delete([str(part)]) == []
    assert not part.exists()


def test_everything_there_needs_no_service(client, dump, monkeypatch):
    make(dump, ["dumps"])
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    client.reset()
    planned = make(dump)
    assert planned.of("dumps") == []
    [batch] = make_batch(dump)
    fetch.run(batch, dump, 1)
    assert client.count.operations == {}


def make_batch(config: dict[str, Any]):
    """The fetch batch as a run that has not seen the files would have planned it."""
    planned = plan_of(config)
    return plan.batches([t for t in planned.targets.values() if t.stage == "dumps"], {})


def test_expired_urls_are_renewed_through_the_client(client, dump):
    client.faults.append(Fault("expire", "chunk_2"))
    make(dump, ["dumps"])
    assert client.count.operations["ArtifactMembershipFiles"] == 2
    assert client.count.requests == 9


def test_run_files_are_fetched_the_same_way(client, tmp_path):
    client.add_run("team/project/run1", {**CHUNKS, "output.log": b"log"}, md5=False)
    source = {"source": {"run": "team/project/run1"}, "files": ["*.npy"], "position": "mean"}
    wanted = config(tmp_path, {"acts": source})
    room.lock(wanted, "acts")
    [t] = assembled(make(wanted))
    assert np.array_equal(models.load_activations(t.path), X)
    kept = Path(wanted["cache_dir"], "dumps", "acts")
    assert len(list(kept.glob("size.*.npy"))) == len(list(kept.glob("size.*.npy.sha256"))) == 8
    for path in kept.glob("size.*.npy"):
        room.verify_file(path)


def test_a_run_file_without_a_digest_that_was_uploaded_again_is_refused(client, tmp_path):
    run = client.add_run("team/project/run1", CHUNKS, md5=False)
    source = {"source": {"run": "team/project/run1"}, "files": ["*.npy"], "position": "mean"}
    wanted = config(tmp_path, {"acts": source})
    room.lock(wanted, "acts")
    run.files["resid_post.1/chunk_2.npy"]["updatedAt"] = "2026-02-02T03:04:05Z"
    with pytest.raises(ActprobeError, match=r"(?s)1 of 8 files.*chunk_2\.npy: .*as it was locked"):
        make(wanted)
    room.lock(wanted, "acts")
    make(wanted)


def test_names_never_become_paths(client, tmp_path):
    files = {"a/resid_pre.0.npy;rm -rf": CHUNKS["resid_post.1/chunk_0.npy"]}
    client.add_artifact("team/project/odd", files)
    entry = {"source": {"artifacts": ["team/project/odd:v0"]}, "sites": {"resid_pre.0": ["*"]}}
    wanted = config(tmp_path, {"odd": entry})
    room.lock(wanted, "odd")
    make(wanted, ["dumps"])
    [path] = Path(wanted["cache_dir"], "dumps", "odd").iterdir()
    assert path.suffix == ".bin"


def test_key_and_signed_urls_are_nowhere(client, dump, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    client.faults += [Fault("drop", "chunk_1", at=100), Fault("expire", "chunk_3", times=99)]
    with pytest.raises(ActprobeError):
        make(dump)
    client.faults.clear()
    make(dump)
    assert KEY not in quiet_logs(caplog)
    assert "trying again" in quiet_logs(caplog)
    assert SIGNATURE not in quiet_logs(caplog)
    assert traces(tmp_path, KEY) == []
    assert traces(tmp_path, SIGNATURE) == []
    assert client.count.leaks == 0


def test_artifacts_with_one_file_name_are_assembled_as_they_are_listed(client, tmp_path):
    names = [f"team/project/acts-{i}" for i in (2, 0, 1)]
    for i, name in enumerate(names):
        client.add_artifact(name, {"resid_pre.2.npy": chunk(X[i * 10 : i * 10 + 10])})
    source = {"source": {"artifacts": [f"{n}:latest" for n in names]}, "position": "mean"}
    wanted = config(tmp_path, {"acts": source})
    room.lock(wanted, "acts")
    [t] = assembled(make(wanted))
    assert np.array_equal(models.load_activations(t.path), X[:30])
    client.add_artifact(names[1], {"resid_pre.2.npy": chunk(X[:10] + 1)})
    assert "resid_pre.2.npy: changed" in room.outdated(wanted, "acts")


def test_sites_come_from_names_or_from_the_config(client, tmp_path):
    files = {
        "activation_data/blocks--2--hook_resid_pre.npy": chunk(X),
        "activation_data/blocks.11.hook_mlp_out.npy": chunk(X),
        "activation_data/blocks--3--attn--hook_z.npy": chunk(X),
        "activation_data/z.4_hook.npy": chunk(X),
        "hook_embed.npy": chunk(X),
        "mystery_xyz.5.npy": chunk(X),
    }
    client.add_artifact("team/project/acts", files)
    source = {"source": {"artifacts": ["team/project/acts:v0"]}, "position": "mean"}
    wanted = config(tmp_path, {"acts": source})
    room.lock(wanted, "acts")
    with pytest.raises(ConfigError, match=r"'mystery_xyz\.5\.npy' tells no site"):
        plan_of(wanted)
    named = {**source, "sites": {"resid_post.7": ["mystery*"]}}
    [t] = assembled(plan_of(config(tmp_path, {"acts": named})))
    assert t.args.site == "resid_post.7"
    fewer = {**source, "files": ["*hook*"]}
    wanted = config(tmp_path, {"acts": fewer})
    room.lock(wanted, "acts")
    sites = [t.args.site for t in assembled(plan_of(wanted))]
    assert sites == ["embed", "mlp_out.11", "resid_pre.2", "z.3", "z.4"]
    with pytest.raises(ConfigError, match=r"already activations imported/embed\.mean of imported"):
        plan_of(
            config(
                tmp_path,
                {"acts": fewer, "again": {**fewer, "lock": wanted["dumps"]["acts"]["lock"]}},
            )
        )
    nothing = {**fewer, "sites": {"embed": ["nope*"]}}
    with pytest.raises(ConfigError, match=r"sites\.embed: no file matches"):
        plan_of(config(tmp_path, {"acts": nothing}))
