"""The fetcher against a storage host that misbehaves: the right bytes or a clear error."""

# ruff: noqa: F401, F811
from __future__ import annotations

import base64
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dumps_cases import fetch_all, golden, quiet_logs, remotes, traces
from wandb_server import EXPIRED_TOKEN, SIGNATURE, Fault, Server, server

from actprobe.base.errors import ActprobeError, NoSpace
from actprobe.dumps import digests, fetcher, pace
from actprobe.dumps.connection import _pause
from actprobe.dumps.download import Download, segment_size, verified_path
from actprobe.dumps.journal import Journal, open_private
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

MIB = 1 << 20
FILES = {f"chunk_{i}.pt": golden(i, 4 * 32768) for i in range(8)}  # 4 MiB each
TOTAL = 8 * 4 * MIB
BAD = "chunk_3.pt"


def correct(wanted) -> list[str]:
    """Files that are there; fails when one of them has other bytes than it should."""
    there = [r for r in wanted if verified_path(r.into).exists()]
    for r in there:
        assert verified_path(r.into).read_bytes() == FILES[r.path], r.path
    return [r.path for r in there]


def test_every_file_arrives_once_over_a_few_kept_connections(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)
    seen = server.reset()
    assert (seen.requests, seen.sent) == (32, TOTAL)
    assert seen.connections <= 8
    assert 1 < seen.most_active <= 8
    assert seen.leaks == 0
    assert fetch_all(server, artifact, wanted) == {}
    assert server.reset().requests == 0
    assert {p.suffix for p in tmp_path.iterdir()} == {".verified"}


@pytest.mark.parametrize(
    ("fault", "requests", "sent"),
    [
        (Fault("status", BAD, status=500), 33, TOTAL),
        (Fault("status", BAD, status=502), 33, TOTAL),
        (Fault("status", BAD, status=507), 33, TOTAL),
        (Fault("status", BAD, status=520), 33, TOTAL),
        (Fault("status", BAD, status=429, headers={"Retry-After": "0.3"}), 33, TOTAL),
        (Fault("drop", BAD, at=600_000), 33, TOTAL),
        (Fault("short", BAD, at=600_000), 33, TOTAL),
        (Fault("stall", BAD, at=600_000), 33, TOTAL),
        (Fault("expire", BAD), 33, TOTAL),
        (Fault("status", BAD, status=400, body=EXPIRED_TOKEN), 33, TOTAL),
        (Fault("slow", BAD, rate=2e6), 32, TOTAL),
        (Fault("corrupt", BAD, at=1_000_000), 36, TOTAL + 4 * MIB),
    ],
    ids=lambda v: v.kind + str(v.status if v.kind == "status" else "") if type(v) is Fault else "",
)
def test_a_passing_fault_costs_one_more_request(server, tmp_path, fault, requests, sent):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.faults.append(fault)
    begun = time.monotonic()
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)
    assert fault.times == 0
    seen = server.reset()
    assert seen.requests == requests
    # A reset may discard what was sent but not yet received.
    assert sent <= seen.sent <= sent + (600_000 if fault.kind == "drop" else 0)
    if fault.status == 429:
        assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("status", BAD, times=99, status=404), "HTTP 404"),
        (Fault("status", BAD, times=99, status=400), "HTTP 400"),
        (Fault("status", BAD, times=999, status=503), "HTTP 503; gave up after 8 tries"),
        (Fault("expire", BAD, times=999), "HTTP 403; gave up after 8 tries"),
        (Fault("packed", BAD, times=999), "come packed (Content-Encoding: gzip); gave up"),
        (Fault("status", BAD, times=99, status=416), "HTTP 416: the file there has fewer than"),
        (Fault("status", BAD, times=999, status=520), "HTTP 520; gave up after 8 tries"),
        (Fault("wrongrange", BAD, times=999), "Content-Range is 'bytes"),
        (Fault("stall", BAD, times=999), "gave up after 2 tries"),
    ],
    ids=lambda v: v.kind if type(v) is Fault else "",
)
def test_a_lasting_fault_fails_its_file_alone(server, tmp_path, caplog, fault, reason):
    caplog.set_level(logging.DEBUG)
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.faults.append(fault)
    tries = {"tries": 2, "stall": 0.3} if fault.kind == "stall" else {}
    failed = fetch_all(server, artifact, wanted, **tries)
    assert list(failed) == [BAD]
    assert reason in failed[BAD]
    assert correct(wanted) == [n for n in FILES if n != BAD]
    server.faults.clear()
    server.reset()
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)
    assert server.reset().sent <= 4 * MIB
    assert "sig=" not in str(failed)


def test_signed_urls_reach_no_log_and_no_file(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.faults += [Fault("drop", "chunk_1.pt", at=1000), Fault("status", BAD, 99, status=404)]
    assert list(fetch_all(server, artifact, wanted)) == [BAD]
    assert "trying again" in quiet_logs(caplog)
    assert SIGNATURE not in quiet_logs(caplog)
    assert traces(tmp_path, SIGNATURE) == []


def test_a_wrong_digest_is_fetched_once_more_and_then_refused(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.faults.append(Fault("corrupt", BAD, times=99, at=1_000_000))
    failed = fetch_all(server, artifact, wanted)
    expected = wanted[3].digest
    assert failed[BAD].startswith("downloaded twice, md5 is ")
    assert failed[BAD].endswith(f"expected {expected}")
    assert server.reset().requests == 36
    assert not list(tmp_path.glob(f"{wanted[3].into.name}*"))
    server.faults.clear()
    assert fetch_all(server, artifact, wanted) == {}
    assert server.reset().sent == 4 * MIB
    assert correct(wanted) == list(FILES)


@pytest.mark.parametrize("after", [60_000, 700_000, 3 * MIB])
def test_progress_is_made_when_every_connection_is_cut(server, tmp_path, after):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.cut_after = after
    assert fetch_all(server, artifact, wanted, tries=20) == {}
    assert correct(wanted) == list(FILES)


def test_connections_cut_at_random_bytes(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    chance = random.Random(0)
    server.faults += [
        Fault(
            "drop",
            f"chunk_{chance.randrange(8)}",
            skip=chance.randrange(4),
            at=chance.randrange(MIB),
        )
        for _ in range(20)
    ]
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)


CHILD = """
import json, sys
from pathlib import Path
from actprobe.dumps import fetcher, pace
from actprobe.dumps.download import Remote
from actprobe.files.hub import Progress
from actprobe.dumps.urls import Urls
url, wanted = sys.argv[1], [Remote(*r, Path(into)) for *r, into in json.loads(sys.argv[2])]
ask = lambda source, paths: {p: url.replace("NAME", p) for p in paths}
urls = Urls(ask, [(r.source, r.path) for r in wanted])
progress = Progress("", {r.path: r.size for r in wanted})
print("go", flush=True)
sys.exit(bool(fetcher.fetch(wanted, urls, pace.Settings(segment=1 << 20), progress)))
"""


def test_killed_at_twenty_moments_it_goes_on_where_it_was(tmp_path):
    """A killed fetch loses less than one megabyte per connection, and never publishes a part."""
    wanted = remotes(tmp_path, FILES)
    described = json.dumps(
        [[r.source, r.path, r.size, r.alg, r.digest, str(r.into)] for r in wanted]
    )
    chance = random.Random(1)
    with Server(rate=16e6) as server:
        for name, content in FILES.items():
            server.blobs[name] = content
        url = server.sign("NAME", "NAME")
        killed = 0
        for moment in [chance.uniform(0, 0.12) for _ in range(20)] + [None]:
            command = [sys.executable, "-c", CHILD, url, described]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout and child.stdout.readline() == "go\n"
                if moment is not None:
                    time.sleep(moment)
                    child.send_signal(signal.SIGKILL)
                killed += child.wait() == -signal.SIGKILL
            correct(wanted)
        assert killed > 3
        assert correct(wanted) == list(FILES)
        assert server.count.sent <= TOTAL + killed * 8 * MIB
        server.reset()
        assert fetch_all(server, None, wanted) == {}
        assert server.count.requests == 0


FEW = "import os, resource, time\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))\n"
FEW += "real = os.fsync\nos.fsync = lambda fd: (time.sleep(0.01), real(fd))  # a slow disk\n"


def test_more_files_than_a_process_may_open(server, tmp_path):
    files = {f"{i}.pt": b"%06d" % i for i in range(200)}
    server.blobs.update(files)
    wanted = remotes(tmp_path, files)
    described = json.dumps(
        [[r.source, r.path, r.size, r.alg, r.digest, str(r.into)] for r in wanted]
    )
    command = [sys.executable, "-c", FEW + CHILD, server.sign("NAME", "NAME"), described]
    code = subprocess.run(command, timeout=60).returncode
    assert code == 0
    assert all(verified_path(r.into).exists() for r in wanted)


def test_a_file_is_complete_only_when_its_journal_is_written(tmp_path, monkeypatch):
    """The thread that finishes a complete file closes the descriptors of part and journal."""
    download = Download(remotes(tmp_path, {"a": b"12345678"})[0], segment=4)
    download.open()
    download.write(0, 0, b"1234")
    write, complete = os.pwrite, []

    def watched(*args):
        complete.append(download.complete)
        return write(*args)

    monkeypatch.setattr(os, "pwrite", watched)
    download.write(1, 0, b"5678")
    assert complete == [False, False] and download.complete
    assert download.finish()


def test_a_part_of_something_else_is_begun_anew(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    part = Path(f"{wanted[0].into}.part")
    part.write_bytes(b"\0" * (4 * MIB))
    Journal(Path(f"{part}.journal"), "another file", 4).record(0, MIB)
    assert fetch_all(server, artifact, wanted) == {}
    assert server.reset().sent == TOTAL


def test_a_journal_that_is_ahead_of_its_part_is_caught_by_the_digest(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    server.faults.append(Fault("status", BAD, times=99, status=404))
    fetch_all(server, artifact, wanted)
    part = Path(f"{wanted[3].into}.part")
    identity = Path(f"{part}.journal").read_bytes().split(b"\n")[0].decode()
    journal = Journal(Path(f"{part}.journal"), identity, 4)
    journal.record(2, MIB)  # as after a crash of the machine: noted, but never written
    journal.close()
    server.faults.clear()
    server.reset()
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)
    assert server.reset().sent == 3 * MIB + 4 * MIB


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(server, tmp_path, monkeypatch):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    usage = type("Usage", (), {"free": 70 * MIB})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(NoSpace, match=r"needs 100\.7 MB, 73\.4 MB are free"):
        fetch_all(server, artifact, wanted)
    assert server.count.requests == 0
    monkeypatch.undo()
    assert fetch_all(server, artifact, wanted) == {}


def test_a_disk_that_fills_up_on_the_way_fails_the_file_and_keeps_the_part(
    server, tmp_path, monkeypatch
):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)

    def pwrite(fd: int, data, offset: int, real=os.pwrite) -> int:
        if BAD in names.get(os.fstat(fd).st_ino, "") and offset >= MIB:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    names = {}

    def opened(path, real=open_private) -> int:
        fd = real(path)
        if str(path).endswith(".part"):
            names[os.fstat(fd).st_ino] = next(r.path for r in wanted if str(r.into) in str(path))
        return fd

    monkeypatch.setattr("actprobe.dumps.download.open_private", opened)
    monkeypatch.setattr("os.pwrite", pwrite)
    failed = fetch_all(server, artifact, wanted)
    assert list(failed) == [BAD]
    assert "disk full" in failed[BAD]
    monkeypatch.undo()
    assert fetch_all(server, artifact, wanted) == {}
    assert correct(wanted) == list(FILES)


def test_the_rate_limit_holds_over_all_connections(server, tmp_path):
    files = {n: c[: MIB // 2] for n, c in FILES.items()}
    artifact, wanted = server.add_artifact("team/project/dump", files), remotes(tmp_path, files)
    begun = time.monotonic()
    assert fetch_all(server, artifact, wanted, rate_limit=8e6) == {}
    assert time.monotonic() - begun >= 0.9 * 8 * MIB / 2 / 8e6


@pytest.mark.parametrize("alg", ["md5", "sha256", "xxh128"])
def test_digest_algorithms_and_files_of_any_length(server, tmp_path, alg):
    files = {"empty.pt": b"", "one.pt": b"x", "odd.pt": golden(0)[:-1] * 2, "whole.pt": golden(1)}
    artifact, wanted = (
        server.add_artifact("team/project/dump", files),
        remotes(tmp_path, files, alg),
    )
    assert fetch_all(server, artifact, wanted) == {}
    assert [verified_path(r.into).read_bytes() for r in wanted] == list(files.values())


def test_a_file_without_a_listed_digest_keeps_the_one_it_had_on_arrival(server, tmp_path):
    folder = tmp_path / "dumps" / "dump"
    artifact = server.add_artifact("team/project/dump", {"a.pt": b"abc"})
    [r] = remotes(folder, {"a.pt": b"abc"}, "size")
    assert fetch_all(server, artifact, [r]) == {}
    os.replace(verified_path(r.into), r.into)
    digests.verify_file(r.into)
    r.into.write_bytes(b"abd")
    with pytest.raises(digests.Damaged, match="expected ba7816bf"):
        digests.verify_file(r.into)


def test_a_file_without_a_listed_digest_is_not_resumed(server, tmp_path):
    old, new = b"A" * (4 * MIB), b"B" * (4 * MIB)
    artifact = server.add_artifact("team/project/dump", {"a.pt": old})
    [r] = remotes(tmp_path, {"a.pt": old}, "size")
    server.faults.append(Fault("status", "a.pt", times=99, skip=2, status=404))
    assert list(fetch_all(server, artifact, [r], connections=1)) == ["a.pt"]
    server.faults.clear()
    server.blobs[artifact.blobs["a.pt"]] = new
    assert fetch_all(server, artifact, [r]) == {}
    assert verified_path(r.into).read_bytes() == new


def test_a_file_that_is_not_listed_any_more_when_its_url_expires(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    answers = iter([{r.path: server.sign(artifact.blobs[r.path], r.path) for r in wanted}, {}])
    urls = Urls(lambda source, paths: next(answers), [(r.source, r.path) for r in wanted])
    url = urls.get(wanted[0].source, wanted[0].path)
    with pytest.raises(KeyError):
        urls.get(wanted[0].source, wanted[0].path, expired=url)


def test_an_expired_url_is_replaced_whatever_the_status(server, tmp_path):
    files = {"a.pt": golden(0)}
    artifact, [r] = server.add_artifact("team/project/dump", files), remotes(tmp_path, files)
    server.faults.append(Fault("status", "a.pt", times=2, status=400, body=EXPIRED_TOKEN))
    asked = []

    def ask(source, paths):
        asked.append(paths)
        return {p: server.sign(artifact.blobs[p], p) for p in paths}

    quick = pace.Settings(backoff=0.005)
    assert (
        fetcher.fetch([r], Urls(ask, [(r.source, r.path)]), quick, Progress("", {r.path: 1})) == {}
    )
    assert len(asked) == 3


def test_a_service_that_is_down_is_asked_once_and_not_for_each_file(tmp_path):
    asked = []

    def ask(source, paths):
        asked.append(paths)
        raise ActprobeError("down")

    files = {f"{i}.pt": golden(i, 1) for i in range(100)}
    wanted = remotes(tmp_path, files)
    urls = Urls(ask, [(r.source, r.path) for r in wanted])
    failed = fetcher.fetch(wanted, urls, pace.Settings(), Progress("", dict.fromkeys(files, 1)))
    assert set(failed.values()) == {"down"} and len(failed) == 100
    assert len(asked) == 1


def test_a_symbolic_link_in_the_way_of_a_part_is_not_followed(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FILES), remotes(tmp_path, FILES)
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    os.symlink(outside, f"{wanted[3].into}.part")
    assert list(fetch_all(server, artifact, wanted)) == [BAD]
    assert outside.read_bytes() == b"mine"


def test_segments_grow_with_the_file():
    assert segment_size(1) == MIB
    assert segment_size(64 * MIB) == MIB
    assert segment_size(494_000_000) == 8 * MIB
    assert segment_size(10**12) == 16 * MIB


def test_pause_is_a_number_or_a_date_and_bounded():
    assert _pause("2") == 2
    assert _pause("999999") == 120
    assert _pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for value in ("soon", "nan", "inf", "-inf", "1e999"):
        assert _pause(value) is None
    assert _pause(None) is None


def test_the_golden_files_have_the_digests_that_the_service_computes(tmp_path):
    wanted = remotes(tmp_path, {str(i): golden(i) for i in range(2)})
    assert [r.digest for r in wanted] == [
        "50919ee0f862d16d8610687c0d005bf2",
        "8fd4db35c235c0d0620bece973125aa4",
    ]
    [xxh] = remotes(tmp_path, {"0": golden(0)}, "xxh128")
    assert base64.b64encode(bytes.fromhex(xxh.digest)) == b"hD+e8FjHGgkLYx+MqkitcA=="
