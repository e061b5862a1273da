"""What is published was hashed (B7), by several threads (G6), also after an interrupt."""

# ruff: noqa: F401, F811
from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from dumps_cases import FOUR, fetch_all, good, remotes
from wandb_server import server

from actprobe.dumps import connection, digests, fetcher
from actprobe.dumps.download import verified_path

MIB = 1 << 20


# --- G6 and B7: hashing


def test_g6_finished_files_are_hashed_by_several_threads(server, tmp_path, monkeypatch):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    monkeypatch.setattr(fetcher, "_CORES", 4)
    now, most, lock = [0], [], threading.Lock()
    original = fetcher.Download.finish

    def finish(self: Any, stopped: Any) -> bool:
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.2)
        done = original(self, stopped)
        with lock:
            now[0] -= 1
        return done

    monkeypatch.setattr(fetcher.Download, "finish", finish)
    assert fetch_all(server, artifact, wanted) == {} and good(wanted)
    assert max(most) > 1


def test_b7_a_file_that_waits_is_hashed_before_it_is_published(server, tmp_path):
    """A right length says nothing about the content."""
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    for r in wanted[:2]:
        verified_path(r.into).write_bytes(b"\0" * r.size)
    verified_path(wanted[2].into).write_bytes(FOUR[wanted[2].path])
    verified_path(wanted[3].into).write_bytes(b"short")
    assert fetch_all(server, artifact, wanted) == {} and good(wanted)
    assert set(server.reset().files) == {r.path for r in (*wanted[:2], wanted[3])}


def test_b7_a_file_without_digest_that_waits_has_the_one_it_came_with(server, tmp_path):
    files = {"a.pt": b"A" * 1000, "b.pt": b"B" * 1000, "c.pt": b"C" * 1000}
    artifact, wanted = (
        server.add_artifact("team/project/dump", files),
        remotes(tmp_path, files, "size"),
    )
    for r in wanted:
        verified_path(r.into).write_bytes(files[r.path])
    digests.keep_digest(wanted[0].into, hashlib.sha256(files["a.pt"]).hexdigest())
    digests.keep_digest(wanted[1].into, hashlib.sha256(b"something else").hexdigest())
    assert fetch_all(server, artifact, wanted) == {} and good(wanted, files)
    assert set(server.reset().files) == {"b.pt", "c.pt"}
    for r in wanted:
        assert digests.kept_digest(r.into) == hashlib.sha256(files[r.path]).hexdigest()


INTERRUPTED = """
import json, os, signal, sys, time
from pathlib import Path
from actprobe.dumps import download, fetcher, pace
from actprobe.files.hub import Progress
from actprobe.dumps.urls import Urls
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
real = os.pread
def slow(fd, n, at):
    if n == 1 << 20:
        os.write(1, b"hashing\\n")
        time.sleep(0.5)
    return real(fd, n, at)
download.os.pread = slow
url, wanted = sys.argv[1], [download.Remote(*r, Path(i)) for *r, i in json.loads(sys.argv[2])]
ask = lambda source, paths: {p: url.replace("NAME", p) for p in paths}
urls = Urls(ask, [(r.source, r.path) for r in wanted])
progress = Progress("", {r.path: r.size for r in wanted})
fetcher.fetch(wanted, urls, pace.Settings(segment=1 << 20), progress)
"""


def test_an_interrupt_while_files_are_hashed_ends_at_once_and_keeps_them(server, tmp_path):
    import json

    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.blobs.update(FOUR)
    described = json.dumps(
        [[r.source, r.path, r.size, r.alg, r.digest, str(r.into)] for r in wanted]
    )
    command = [sys.executable, "-c", INTERRUPTED, server.sign("NAME", "NAME"), described]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout and child.stdout.readline() == "hashing\n"
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert time.monotonic() - begun < 30 and child.returncode != 0 and "KeyboardInterrupt" in said
    server.reset()
    assert fetch_all(server, artifact, wanted) == {} and good(wanted)
    assert server.reset().sent < 4 * 4 * MIB  # what had arrived is not asked for again


def test_a_wall_clock_that_jumps_changes_no_wait(monkeypatch):
    for jump in (-1e12, -1e9, 0.0, 1e9, 1e12):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        wait = connection._pause("Wed, 21 Oct 2015 07:28:00 GMT")
        assert wait is not None and 0 <= wait <= 120
