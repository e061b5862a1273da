"""Locking a dump through the real client, against the loopback server."""

# ruff: noqa: F401, F811
from __future__ import annotations

import json
import logging

import pytest
from dumps_cases import KEY, client, config, golden, quiet_logs, traces
from wandb_server import SIGNATURE, Fault, Server, server

from actprobe import dumps as room
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.dumps import lockfile
from actprobe.dumps.service import Service, _check_complete
from actprobe.files import check_name

CHUNKS = {f"activation_data/chunk_{i:03d}.pt": golden(i) for i in range(8)}
ARTIFACT = {"source": {"artifacts": ["team/project/dump:latest"]}}


def test_an_artifact_is_locked_by_version_digest_and_files(client, tmp_path):
    client.add_artifact("team/project/dump", CHUNKS)
    wanted = config(tmp_path, {"dump": ARTIFACT})
    path = room.lock(wanted, "dump")
    content = json.loads(path.read_text())
    assert content["artifacts"] == [
        {"name": "team/project/dump:v0", "digest": "271f53896c94c9ffc8c54114d1d8d190"}
    ]
    assert content["files"][0] == {
        "path": "activation_data/chunk_000.pt",
        "size": 1 << 20,
        "alg": "md5",
        "digest": "50919ee0f862d16d8610687c0d005bf2",
        "source": "team/project/dump:v0",
    }
    assert len(content["files"]) == 8
    assert client.count.unknown == []
    # Nothing changed: the file is not touched.
    before = path.stat()
    room.lock(wanted, "dump")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert room.outdated(wanted, "dump") == []


def test_an_artifact_hashed_with_xxh128(client, tmp_path):
    client.add_artifact("team/project/dump", CHUNKS, alg="xxh128")
    content = json.loads(room.lock(config(tmp_path, {"dump": ARTIFACT}), "dump").read_text())
    assert content["artifacts"][0]["digest"] == "6cffad10a535c481f9b2f723147831b8"
    assert content["files"][0]["alg"] == "xxh128"
    assert content["files"][0]["digest"] == "843f9ef058c71a090b631f8caa48ad70"


def test_a_new_version_is_told_and_only_its_changed_file_differs(client, tmp_path):
    client.add_artifact("team/project/dump", CHUNKS)
    wanted = config(tmp_path, {"dump": ARTIFACT})
    old = json.loads(room.lock(wanted, "dump").read_text())
    client.add_artifact("team/project/dump", {**CHUNKS, "activation_data/chunk_005.pt": b"new"})
    assert room.outdated(wanted, "dump") == [
        "team/project/dump:v1: new",
        "team/project/dump:v0: gone",
        "activation_data/chunk_005.pt: changed",
    ]
    new = json.loads(room.lock(wanted, "dump").read_text())
    changed = [
        a["path"]
        for a, b in zip(old["files"], new["files"], strict=True)
        if a["digest"] != b["digest"]
    ]
    assert changed == ["activation_data/chunk_005.pt"]


def test_run_files_with_and_without_a_digest_by_pattern(client, tmp_path, caplog):
    many = {f"activation_data/{i}.npy": bytes([i]) for i in range(120)}  # more than one page
    client.add_run("team/project/run1", many)
    client.add_run("team/project/run1", {"late.npy": b"zz", "output.log": b""}, md5=False)
    source = {"source": {"run": "team/project/run1"}, "files": ["*.npy"]}
    wanted = config(tmp_path, {"dump": source})
    files = {f.path: f for f in lockfile.read(wanted, room.lock(wanted, "dump").stem).files}
    assert len(files) == 121
    assert files["activation_data/7.npy"].alg == "md5"
    assert files["late.npy"].alg == "size"
    assert "late.npy: the service keeps no digest of it" in caplog.text


def test_chunk_artifacts_of_a_run_the_newest_version_of_each(client, tmp_path):
    run = client.add_run("team/project/run1")
    for version in range(11):  # v10 is newer than v9
        chunk = {"blocks--1--hook_resid_pre.pt": b"%d" % version}
        client.add_artifact(
            "team/project/c1", chunk, type="chunk", description="data chunk 1/2 for x", run=run
        )
    tokens = {"all_token_ids.pt": b"t"}
    client.add_artifact(
        "team/project/c2", tokens, type="chunk", description="Token IDs chunk 2/2", run=run
    )
    client.add_artifact("team/project/other", {"x.pt": b"x"}, type="model", run=run)
    source = {"source": {"run": "team/project/run1", "type": "chunk"}}
    wanted = config(tmp_path, {"dump": source})
    room.lock(wanted, "dump")
    lock = lockfile.read(wanted, "dump")
    assert list(lock.artifacts) == ["team/project/c1:v10", "team/project/c2:v0"]
    assert [f.size for f in lock.files] == [1, 2]


def test_an_incomplete_dump_is_refused(client, tmp_path):
    run = client.add_run("team/project/run1")
    for i in (1, 4):
        about = f"SAE activation data chunk {i}/4 for x"
        client.add_artifact(
            f"team/project/c{i}", {f"{i}.pt": b"x"}, type="chunk", description=about, run=run
        )
    wanted = config(tmp_path, {"dump": {"source": {"run": "team/project/run1", "type": "chunk"}}})
    with pytest.raises(ActprobeError, match="incomplete: of 4 chunks 2, 3 are missing"):
        room.lock(wanted, "dump")


@pytest.mark.parametrize("form", ["{}/{}", "{} of {}"])
def test_chunks_are_counted_and_none_may_be_there_twice(form):
    def check(*numbers: int) -> None:
        _check_complete("r", [f"data chunk {form.format(i, 3)}" for i in numbers])

    check(2, 3, 1)
    with pytest.raises(ActprobeError, match="of 3 chunks 2 are missing"):
        check(1, 3)
    with pytest.raises(ActprobeError, match="several artifacts are called 'data chunk 3"):
        check(1, 2, 3, 3)
    # Two sites may count their chunks apart.
    _check_complete("r", ["chunk 1/2 of a", "chunk 2/2 of a", "chunk 1/2 of b", "chunk 2/2 of b"])


def test_two_aliases_of_one_version_are_one_artifact(client, tmp_path):
    client.add_artifact("team/project/dump", CHUNKS)
    names = ["team/project/dump:latest", "team/project/dump:v0"]
    wanted = config(tmp_path, {"dump": {"source": {"artifacts": names}}})
    assert len(json.loads(room.lock(wanted, "dump").read_text())["files"]) == 8


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"artifacts": ["team/project/nope:v1"]}, "nope:v1"),
        ({"run": "team/project/nope"}, "team/project/nope"),
        ({"run": "team/project/run1", "type": "nope"}, "logged no artifact of type 'nope'"),
    ],
)
def test_what_does_not_exist_is_named(client, tmp_path, source, message):
    client.add_run("team/project/run1")
    with pytest.raises(ActprobeError, match=message):
        room.lock(config(tmp_path, {"dump": {"source": source}}), "dump")
    assert not (tmp_path / "dump.json").exists()


def test_references_to_other_storage_are_refused(client, tmp_path):
    client.add_artifact("team/project/dump", {}, references={"big.pt": "s3://bucket/big.pt"})
    with pytest.raises(ActprobeError, match=r"big\.pt is a reference"):
        room.lock(config(tmp_path, {"dump": ARTIFACT}), "dump")


NAMES = [
    "../x",
    "/etc/x",
    "a/../../x",
    "C:\\x",
    "a\\..\\x",
    "",
    ".",
    "a/./b",
    "a//b",
    "x\0",
    "c:/x",
]


@pytest.mark.parametrize("name", NAMES)
def test_dangerous_names_are_refused(name):
    with pytest.raises(ActprobeError, match="not a safe file name"):
        check_name(name)


def test_a_dangerous_name_in_an_artifact_is_refused(client, tmp_path):
    client.add_artifact("team/project/dump", {"../../evil.pt": b"x"})
    with pytest.raises(ActprobeError, match="not a safe file name"):
        room.lock(config(tmp_path, {"dump": ARTIFACT}), "dump")


@pytest.mark.parametrize("status", [500, 429])
def test_a_service_that_stumbles_is_asked_again(client, status):
    client.add_artifact("team/project/dump", CHUNKS)
    fault = Fault("status", "FetchArtifactManifest", status=status, headers={"Retry-After": "0"})
    client.faults.append(fault)
    lock = Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert len(lock.files) == 8
    assert fault.times == 0


def test_signed_urls_of_artifact_and_run_files(client):
    client.add_artifact("team/project/dump", CHUNKS)
    client.add_run("team/project/run1", CHUNKS)
    service = Service()
    for source in ("team/project/dump:v0", "team/project/run1"):
        found = service.urls(source, list(CHUNKS)[:3])
        assert list(found) == list(CHUNKS)[:3]
        assert all(SIGNATURE in url for url in found.values())
    assert client.count.unknown == []


def test_without_a_key_the_message_says_so(client, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ActprobeError, match="API key"):
        room.lock(config(tmp_path, {"dump": ARTIFACT}), "dump")


def test_key_and_signed_urls_reach_no_log_and_no_file(client, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    client.add_artifact("team/project/dump", CHUNKS)
    room.lock(config(tmp_path, {"dump": ARTIFACT}), "dump")
    client.faults.append(Fault("status", "wandb_manifest.json", times=99, status=404))
    with pytest.raises(ActprobeError) as error:
        Service().resolve({"artifacts": ["team/project/dump:v0"], "files": ["*"]})
    assert "sig=" not in str(error.value)
    assert KEY not in quiet_logs(caplog)
    assert SIGNATURE not in quiet_logs(caplog)
    assert traces(tmp_path, KEY) == []
    assert traces(tmp_path, SIGNATURE) == []


def test_a_lock_is_read_back_or_refused_with_the_way_out(tmp_path):
    wanted = config(tmp_path, {"dump": ARTIFACT})
    with pytest.raises(ConfigError, match=r"no lock file .*run `actprobe lock dump`"):
        lockfile.read(wanted, "dump")
    file = lockfile.LockedFile("a.pt", 3, "md5", "0" * 32, "team/project/dump:v0")
    lock = lockfile.Lock(lockfile.config_source(wanted, "dump"), {}, (file,))
    assert lockfile.write(lock, tmp_path / "dump.json")
    assert not lockfile.write(lock, tmp_path / "dump.json")
    assert lockfile.read(wanted, "dump") == lock
    other = config(tmp_path, {"dump": {"source": {"artifacts": ["team/project/dump:v7"]}}})
    with pytest.raises(ConfigError, match="was made for"):
        lockfile.read(other, "dump")
    text = (tmp_path / "dump.json").read_text()
    for broken in (text[:-9], "[]", text.replace("0" * 32, "xyz"), text.replace("a.pt", "../a")):
        (tmp_path / "dump.json").write_text(broken)
        with pytest.raises(ActprobeError):
            lockfile.read(wanted, "dump")


def test_an_unknown_dump_gets_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'dump'"):
        room.lock(config(tmp_path, {"dump": ARTIFACT}), "dunp")
