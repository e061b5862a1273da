"""Questions to the service: in parallel, bounded, said when they take long (G2, G5)."""

# ruff: noqa: F401, F811
from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from dumps_cases import client, config, golden, make, remotes
from wandb_server import Fault, Server, server

from actprobe import dumps as room
from actprobe.base.errors import ActprobeError, Unreachable
from actprobe.dumps import asking, fetcher, pace
from actprobe.dumps.download import Remote
from actprobe.dumps.service import Service, _check_complete
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

# --- G2 and G5: questions


@pytest.fixture
def quick(monkeypatch):
    """Impatient questions."""
    monkeypatch.setattr(asking, "TIMEOUT", 2.0)
    monkeypatch.setattr(asking, "_BACKOFF", 0.02)
    monkeypatch.setattr(asking, "_QUIET", 0.3)
    monkeypatch.setattr("actprobe.dumps.service.TIMEOUT", 2.0)


MANY = 40


def slow_questions(server: Server, seconds: float) -> list[int]:
    """Make every question take a while; returns a list that gets how many were open at once."""
    answer, lock, now, most = server.service.answer, threading.Lock(), [0], []

    def slowly(operation: str, v: Any) -> Any:
        with lock:
            return answer(operation, v)

    original = server.fault

    def fault(name: str, kinds: set[str], *args: Any) -> Any:
        if "slow" in kinds and "status" in kinds and name.startswith(("Artifact", "Fetch")):
            with lock:
                now[0] += 1
                most.append(now[0])
            time.sleep(seconds)
            with lock:
                now[0] -= 1
        return original(name, kinds, *args)

    server.service.answer = slowly  # type: ignore[method-assign]
    server.fault = fault  # type: ignore[method-assign]
    return most


def test_g2_artifacts_of_one_file_each_are_asked_about_in_parallel(client, tmp_path):
    names = [f"team/project/acts-{i}" for i in range(MANY)]
    for i, name in enumerate(names):
        client.add_artifact(name, {f"resid_post.1/part_{i}.npy": b"%d" % i})
    source = {"artifacts": [f"{n}:latest" for n in names]}
    wanted = config(tmp_path, {"acts": {"source": source}})
    most = slow_questions(client, 0.1)
    room.lock(wanted, "acts")
    assert max(most) > 4
    client.reset()
    most.clear()
    make(wanted, ["dumps"])
    assert max(most) > 4
    # One question for each artifact: what it needs to know stands in the lock.
    assert client.count.operations["ArtifactMembershipFiles"] == MANY
    assert client.count.operations["ArtifactMembershipByName"] == 0
    assert client.count.unknown == []


def test_g2_a_service_that_is_down_is_not_asked_for_each_artifact(tmp_path):
    asked = []

    def ask(source: str, paths: Any) -> dict[str, str]:
        asked.append(source)
        raise Unreachable("down")

    files = {f"{i}.pt": golden(i, 1) for i in range(100)}
    wanted = [
        Remote(f"t/p/a{i}:v0", r.path, r.size, r.alg, r.digest, r.into)
        for i, r in enumerate(remotes(tmp_path, files))
    ]
    asked_of = Urls(ask, [(r.source, r.path) for r in wanted])
    failed = fetcher.fetch(wanted, asked_of, pace.Settings(), Progress("", dict.fromkeys(files, 1)))
    assert set(failed.values()) == {"down"} and len(failed) == 100
    assert len(asked) <= 8


@pytest.mark.parametrize("status", [500, 507, 520])
def test_g5_a_manifest_that_fails_is_asked_for_again_and_it_says_so(client, quick, caplog, status):
    client.add_artifact("team/project/dump", {"a.pt": b"abc"})
    client.faults.append(Fault("status", "wandb_manifest.json", times=2, status=status))
    lock = Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert len(lock.files) == 1
    assert f"manifest of team/project/dump:v0: HTTP {status}, trying again for up to" in caplog.text


def test_g5_a_manifest_that_keeps_failing_ends(client, quick):
    client.add_artifact("team/project/dump", {"a.pt": b"abc"})
    client.faults.append(Fault("status", "wandb_manifest.json", times=999, status=500))
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"HTTP 500; gave up after \d+ tries in [12] s"):
        Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert time.monotonic() - begun < 60


def test_g5_a_question_without_an_answer_is_told_and_ends(client, quick, caplog):
    client.add_artifact("team/project/dump", {"a.pt": b"abc"})
    client.faults.append(Fault("status", "FetchArtifactManifest", times=999, status=500))
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="team/project/dump:v0: no answer within 2 s"):
        Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert time.monotonic() - begun < 60
    assert "no answer for 0 s; it is asked again, for 2 s in all" in caplog.text


def test_the_manifest_is_asked_for_without_credentials(client, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password hidden")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client.add_artifact("team/project/dump", {"a.pt": b"abc"})
    Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert client.count.files["wandb_manifest.json"] == 1 and client.count.leaks == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"size": 3},
        {"digest": "kAFQmDzST7DWlj99KOF/cg==", "size": -1},
        {"digest": "kAFQmDzST7DWlj99KOF/cg==", "size": "x"},
        {"digest": 5, "size": 3},
        {"digest": "!!", "size": 3},
        {"digest": "kAFQmDzST7DWlj99KOF/cg==", "size": 3, "extra": {"alg": "crc32"}},
        "text",
    ],
)
def test_a_manifest_that_makes_no_sense_is_named(client, entry):
    artifact = client.add_artifact("team/project/dump", {"a.pt": b"abc", "b.pt": b"abc"})
    artifact.entries["b.pt"] = entry if isinstance(entry, str) else {"birthArtifactID": "", **entry}
    client.service._artifact = lambda a: {  # its sizes are of no interest here
        **type(client.service)._artifact(client.service, a_like(artifact))
    }
    with pytest.raises(
        ActprobeError, match=r"dump:v0: the manifest's entry 'b\.pt' is not readable"
    ):
        Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})


def a_like(artifact: Any) -> Any:
    """An artifact as it is listed, whatever its manifest holds."""
    from dataclasses import replace

    return replace(artifact, entries={"a.pt": artifact.entries["a.pt"]})


def test_a_description_that_counts_to_a_billion():
    begun = time.process_time()
    with pytest.raises(
        ActprobeError, match="of 999999999 chunks 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 … are"
    ):
        _check_complete("r", ["chunk 1/999999999"])
    assert time.process_time() - begun < 2
