"""Files of the hub into its local cache: resumed, checked, said; damage is named with its remedy.

Rows I1, I8 and I10 of the fault file, and E3 to E6 as far as they concern the hub.
"""

# ruff: noqa: F401, F811

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hub_server import SIGNATURE, TOKEN, Fault, loopback

from actprobe.base.errors import ActprobeError, ConfigError, Damaged, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.files import hub
from actprobe.files.hub import asking, download, layout, transfer

BIG = np.random.default_rng(0).bytes(3 << 20)
FILES = {"config.json": b'{"a": 1}', "model.safetensors": BIG, "vocab.txt": b"word\n" * 99}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Time limits and waits that a test can wait for."""
    monkeypatch.setattr(asking, "WHOLE", 2.0)
    monkeypatch.setattr(transfer, "STALL", 1.0)
    monkeypatch.setattr(download, "EVERY", 0.2)


@pytest.fixture
def quick(monkeypatch):
    """No wait between two tries."""
    monkeypatch.setattr(download, "PAUSE", 0.0)


def fetch(tmp_path, commit, *names):
    names = names or tuple(FILES)
    hub.Hub(DigestMemo(tmp_path / "cache"), patient=True).fetch("org/name", commit, names, "m")
    return {n: (layout.snapshot("org/name", commit) / n).read_bytes() for n in names}


def part(commit):
    return Path(layout.storage("org/name"), "blobs", _digest(commit) + ".actprobe.incomplete")


def _digest(commit):
    return layout.listing("org/name", commit)["model.safetensors"].digest


# -- what arrives


def test_files_lie_where_the_clients_own_download_looks(tmp_path, loopback):
    from huggingface_hub import hf_hub_download

    commit = loopback.add("org/name", FILES)
    assert fetch(tmp_path, commit) == FILES
    loopback.close()
    for name, content in FILES.items():
        path = hf_hub_download("org/name", name, revision=commit, local_files_only=True)
        assert Path(path).read_bytes() == content
    assert not list(layout.root().rglob("*.incomplete"))


def test_what_the_clients_own_download_fetched_is_used(tmp_path, loopback):
    from huggingface_hub import snapshot_download

    commit = loopback.add("org/name", FILES)
    snapshot_download("org/name", revision=commit)
    loopback.close()
    assert fetch(tmp_path, commit) == FILES


def test_blobs_that_two_commits_share_are_fetched_once(tmp_path, loopback):
    old = loopback.add("org/name", FILES)
    new = loopback.add("org/name", {**FILES, "config.json": b"{}"})
    fetch(tmp_path, old)
    loopback.reset()
    assert fetch(tmp_path, new)["model.safetensors"] == BIG
    assert loopback.sent["model.safetensors"] == 0


@pytest.mark.parametrize("links", [True, False])
def test_a_file_system_without_symbolic_links(tmp_path, loopback, monkeypatch, links):
    def refuse(self, target):
        raise OSError(1, "Operation not permitted")

    commit = loopback.add("org/name", FILES)
    if not links:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    assert fetch(tmp_path, commit) == FILES
    pointer = layout.snapshot("org/name", commit) / "model.safetensors"
    assert pointer.is_symlink() == links
    data = bytearray(BIG)
    data[7] ^= 1
    pointer.write_bytes(data)
    with pytest.raises(Damaged, match="its digest is"):
        fetch(tmp_path, commit)


def test_a_hub_cache_that_cannot_be_written_is_named(tmp_path, loopback, monkeypatch):
    commit = loopback.add("org/name", FILES)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"hub cache .*home/hub cannot be written .*set HF_HOME"):
        fetch(tmp_path, commit)


def test_a_file_that_the_commit_does_not_have(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    with pytest.raises(hub.NotThere, match=r"hub:org/name/nothing at .*: it has no such file"):
        fetch(tmp_path, commit, "nothing")


# -- faults on the way


@pytest.mark.parametrize("kind", ["cut", "short", "stall"])
def test_a_connection_that_breaks_goes_on_where_it_stood(tmp_path, loopback, quick, kind, caplog):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault(kind, "model.safetensors", at=2 << 20))
    with caplog.at_level(logging.INFO):
        assert fetch(tmp_path, commit) == FILES
    assert loopback.sent["model.safetensors"] < len(BIG) + (1 << 20)
    assert "hub:org/name/model.safetensors at" in caplog.text and "; again in" in caplog.text


def test_a_server_that_ignores_ranges_sends_the_file_again(tmp_path, loopback, quick):
    commit = loopback.add("org/name", FILES)
    loopback.faults += [
        Fault("cut", "model.safetensors", at=2 << 20),
        Fault("whole", "model.safetensors", times=9),
    ]
    assert fetch(tmp_path, commit) == FILES


def test_e6_encoded_bytes_are_not_taken(tmp_path, loopback, quick, caplog):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("gzip", "model.safetensors"))
    with caplog.at_level(logging.INFO):
        assert fetch(tmp_path, commit) == FILES
    assert "the server encodes the bytes (gzip)" in caplog.text


def test_wrong_bytes_are_fetched_again_and_then_refused(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("flip", "model.safetensors", at=9))
    assert fetch(tmp_path, commit) == FILES
    assert "wrong bytes arrived; fetched again" in caplog.text
    commit = loopback.add("org/name", {"model.safetensors": BIG[::-1]})
    loopback.faults.append(Fault("flip", "model.safetensors", at=9, times=2))
    with pytest.raises(Unreachable, match=r"fetched twice, its digest is .*, expected"):
        fetch(tmp_path, commit, "model.safetensors")
    assert not part(commit).exists()
    assert fetch(tmp_path, commit, "model.safetensors")["model.safetensors"] == BIG[::-1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", status=503), r"the hub has trouble \(HTTP 503\)"),
        (Fault("status", status=429, headers={"Retry-After": "1"}), "it asks to wait 1 s"),
        (Fault("silent"), "no answer within 1 s"),
        (Fault("cut", at=0), "broke the connection"),
    ],
)
def test_bytes_that_never_come_end_with_a_cause(tmp_path, loopback, quick, fault, message):
    commit = loopback.add("org/name", FILES)
    hub.Hub(DigestMemo(tmp_path / "cache")).listing("org/name", commit)
    fault.match, fault.times = "model.safetensors", 99
    loopback.faults.append(fault)
    with pytest.raises(Unreachable, match=rf"({message}).*0.0 of 3.1 MB are here"):
        fetch(tmp_path, commit)


def test_a_wait_of_an_hour_is_not_waited_for(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    headers = {"Retry-After": "3600"}
    loopback.faults.append(Fault("status", "resolve", status=429, headers=headers, times=99))
    with pytest.raises(Unreachable, match="it asks to wait 3600 s"):
        fetch(tmp_path, commit)


def test_g3_bytes_that_drip_are_given_up(tmp_path, loopback, quick, monkeypatch):
    monkeypatch.setattr(download, "WINDOW", 0.5)
    monkeypatch.setattr(download, "LEAST", 1e6)
    monkeypatch.setattr(download, "TRIES", 1)
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("slow", "model.safetensors", rate=1000, times=99))
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"less than 1000 kB/s for"):
        fetch(tmp_path, commit, "model.safetensors")
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("access", ["gated", "private"])
def test_a_repository_that_is_closed_meanwhile_ends_a_job_at_once(tmp_path, loopback, access):
    commit = loopback.add("org/name", FILES)
    hub.Hub(DigestMemo(tmp_path / "cache")).listing("org/name", commit)
    loopback.repos["org/name"].access = access
    with pytest.raises(hub.Refused, match=r"gated|not logged in"):
        fetch(tmp_path, commit)


def test_one_file_that_is_refused_stops_the_others(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    loopback.faults += [
        Fault("slow", "model.safetensors", rate=1e5, times=99),
        Fault("status", "vocab.txt", status=403, times=99),
    ]
    begun = time.monotonic()
    with pytest.raises(hub.Refused, match=r"vocab\.txt .*asks for a login"):
        fetch(tmp_path, commit)
    assert time.monotonic() - begun < 20


# -- what is said, and what is not


def test_i8_progress_is_a_line_with_bytes_rate_and_time_left(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("slow", "model.safetensors", rate=3e6))
    with caplog.at_level(logging.INFO):
        fetch(tmp_path, commit)
    lines = [r.message for r in caplog.records]
    assert lines[0] == "m: fetching 3 files, 3.1 MB"
    assert any(
        line.startswith("m: ") and "of 3 MB" in line and "MB/s" in line and "left" in line
        for line in lines
    )
    assert lines[-1].startswith("m: fetched at")


def test_e3_no_signature_and_no_token_in_any_log(tmp_path, loopback, quick, caplog, monkeypatch):
    """The HTTP library writes every address that it asks for at INFO."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    home = tmp_path / "netrc"
    home.write_text(f"machine localhost login me password {TOKEN}\n")
    monkeypatch.setenv("NETRC", str(home))
    commit = loopback.add("org/name", FILES, access="gated")
    loopback.faults += [
        Fault("cut", "model.safetensors", at=1 << 20),
        Fault("status", "/storage/", status=403),
        Fault("status", "/storage/", status=500),
    ]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx2").setLevel(logging.INFO)
        assert fetch(tmp_path, commit) == FILES
    assert loopback.requests("/storage/") and not loopback.leaks
    assert "the storage refuses the address that the hub gave (HTTP 403)" in caplog.text
    assert SIGNATURE not in caplog.text and TOKEN not in caplog.text


def test_small_fetches_are_quiet(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    with caplog.at_level(logging.INFO):
        fetch(tmp_path, commit, "config.json", "vocab.txt")
    assert not caplog.records


# -- kills

KILLED = """
import sys, logging
from actprobe.files import hub
from actprobe.base.keys import DigestMemo
logging.basicConfig(level=logging.INFO)
hub.Hub(DigestMemo(sys.argv[1]), patient=True).fetch(
    "org/name", sys.argv[2], ["config.json", "model.safetensors"], "m"
)
"""


def test_i10_a_killed_download_goes_on_where_it_stood(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("slow", "model.safetensors", rate=2e6))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "cache"), commit],
        env=loopback.environment(tmp_path / "home"),
    )
    while loopback.sent["model.safetensors"] < 1 << 20:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = part(commit).stat().st_size
    assert there > 1 << 19
    loopback.reset()
    with caplog.at_level(logging.INFO):
        assert fetch(tmp_path, commit) == FILES
    assert f"goes on at {there / 1e6:.1f} of 3.1 MB" in caplog.text
    assert loopback.sent["model.safetensors"] <= len(BIG) - there + (1 << 17)  # of the killed one
    assert not list(layout.root().rglob("*.incomplete"))


def test_two_processes_fetch_a_file_once(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    loopback.faults.append(Fault("slow", "model.safetensors", rate=2e6, times=9))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cache"), commit]
    env = loopback.environment(tmp_path / "home")
    both = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=60)[1] for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert fetch(tmp_path, commit) == FILES
    assert loopback.sent["model.safetensors"] == len(BIG)
    assert not list(layout.root().rglob("*.incomplete"))


def test_a_part_that_was_altered_is_found(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    hub.Hub(DigestMemo(tmp_path / "cache")).listing("org/name", commit)
    part(commit).parent.mkdir(parents=True)
    part(commit).write_bytes(b"x" * 1000)
    assert fetch(tmp_path, commit) == FILES
    part(commit).write_bytes(b"x" * (4 << 20))
    next(layout.root().rglob(f"blobs/{_digest(commit)}")).unlink()
    assert fetch(tmp_path, commit) == FILES


def test_files_beyond_the_limit_of_http_are_left_to_the_client(tmp_path, loopback, monkeypatch):
    from huggingface_hub import constants

    commit = loopback.add("org/name", FILES)
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1 << 20)
    asked = []

    def client(repo, name, *, revision, repo_type):
        asked.append((repo, name, revision))
        monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1 << 40)
        fetch(tmp_path, revision, name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", client)
    assert fetch(tmp_path, commit) == FILES
    assert asked == [("org/name", "model.safetensors", commit)]


# -- damage


@pytest.mark.parametrize("listed", [True, False])
def test_i1_a_flipped_byte_is_named_with_what_to_delete(tmp_path, loopback, listed):
    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit)
    loopback.close()
    if not listed:
        (layout.storage("org/name") / "trees" / f"{commit}.json").unlink()
    for name in ("model.safetensors", "config.json"):
        path = layout.snapshot("org/name", commit) / name
        blob, good = path.resolve(), path.read_bytes()
        blob.write_bytes(good[:5] + bytes([good[5] ^ 1]) + good[6:])
        with pytest.raises(
            Damaged, match=rf"{blob} in the local hub cache is damaged: .*\(rm {blob} "
        ):
            fetch(tmp_path, commit)
        blob.write_bytes(good)
    assert fetch(tmp_path, commit) == FILES


def test_i1_a_truncated_blob_is_named_with_its_lengths(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit)
    blob = (layout.snapshot("org/name", commit) / "model.safetensors").resolve()
    blob.write_bytes(BIG[:-1000])
    with pytest.raises(
        Damaged, match=rf"{blob} .*damaged: 3,144,728 bytes, expected 3,145,728; del"
    ):
        fetch(tmp_path, commit)
    blob.unlink()
    assert fetch(tmp_path, commit) == FILES


def test_i1_a_place_that_points_to_another_blob(tmp_path, loopback):
    commit = loopback.add("org/name", {**FILES, "other.safetensors": BIG[::-1]})
    names = ("model.safetensors", "other.safetensors")
    fetch(tmp_path, commit, *names)
    one, other = (layout.snapshot("org/name", commit) / n for n in names)
    target = os.readlink(other)
    one.unlink()
    one.symlink_to(target)
    with pytest.raises(Damaged, match="its digest is"):
        fetch(tmp_path, commit, *names)


def test_i1_a_digest_is_taken_once(tmp_path, loopback, monkeypatch):
    from actprobe.base import keys

    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit)
    monkeypatch.setattr(keys, "_COARSEST", 0)
    fetch(tmp_path, commit)
    monkeypatch.setattr(keys, "file_sha256", None)  # would raise
    assert fetch(tmp_path, commit) == FILES


def test_a_shared_store_of_blobs(tmp_path, loopback):
    """The client may keep one file for several repositories, under a name that is no digest."""
    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit)
    (layout.storage("org/name") / "trees" / f"{commit}.json").unlink()
    blob = (layout.snapshot("org/name", commit) / "model.safetensors").resolve()
    store = layout.root() / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    loopback.close()
    assert fetch(tmp_path, commit, "model.safetensors")["model.safetensors"] == BIG
    store.write_bytes(BIG[::-1])
    with pytest.raises(Damaged, match=str(store)):
        fetch(tmp_path, commit, "model.safetensors")


def test_offline_says_what_is_not_here(tmp_path, loopback, monkeypatch):
    from huggingface_hub import constants

    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit, "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(tmp_path, commit, "config.json")
    with pytest.raises(
        Unreachable,
        match=r"HF_HUB_OFFLINE is set, and model\.safetensors and 1 other files are not",
    ):
        fetch(tmp_path, commit)


def test_a_file_that_disappears_while_it_is_checked(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    fetch(tmp_path, commit)
    path = layout.snapshot("org/name", commit) / "model.safetensors"
    path.resolve().unlink()
    with pytest.raises(ActprobeError):
        layout.require_whole(path, DigestMemo(tmp_path))
