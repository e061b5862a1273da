"""Artefacts are sealed, resumable, and refuse to be taken for what they are not."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Damaged, NoSpace
from actprobe.cache import store
from actprobe.cache.store import files

SPEC = {"stage": "activations", "version": 1, "dataset": "toy"}
KEY = keys.short(keys.spec_key(SPEC))
ARRAYS = {"x": ((40, 8), "f4"), "n_tokens": ((40,), "i4"), "empty": ((0, 3), "f4")}


def fill(path: Path, stop_after: int | None = None, spec=SPEC) -> None:
    """Write the toy artefact in 10 units; optionally stop after some, as a crash would."""
    part = store.Part(path, spec, ARRAYS, units=10, facts={"torch": "2"}, attrs={"": {"kind": "t"}})
    for i, u in enumerate(part.pending):
        if i == stop_after:
            part.close()
            store.release(part.work)
            return
        part["x"][4 * u : 4 * u + 4] = u
        part["n_tokens"][4 * u : 4 * u + 4] = u
        part.mark(u)
    store.publish([path], [part.finish()])


@contextlib.contextmanager
def another_process(monkeypatch, its: dict | None = None):
    """What the block does, another process does; `its` keeps what that process holds."""
    its = {} if its is None else its
    with monkeypatch.context() as m:
        m.setattr(files, "_claims", its.setdefault("claims", {}))
        m.setattr(files, "_private", its.setdefault("private", {}))
        yield


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def artefact(tmp_path) -> Path:
    path = tmp_path / f"x.{KEY}.h5"
    fill(path)
    return path


def test_a_published_artefact_verifies_and_holds_its_spec(artefact):
    header = store.verify(artefact)
    assert header["spec"] == SPEC
    assert header["facts"] == {"torch": "2"}
    with store.open_h5(artefact, KEY) as f:
        assert f["x"][:, 0].tolist() == np.repeat(np.arange(10), 4).tolist()
        assert f.attrs["kind"] == "t"
    assert [p.name for p in artefact.parent.iterdir()] == [artefact.name]


def test_a_resumed_artefact_is_bit_identical(artefact, tmp_path):
    other = tmp_path / "again" / artefact.name
    for stop in (3, 0, 5):
        fill(other, stop)
        assert not other.exists()
    fill(other)
    assert digest(other) == digest(artefact)


def test_a_part_of_another_spec_is_begun_anew(artefact, tmp_path):
    path = tmp_path / "other.h5"
    fill(path, 5, SPEC | {"dataset": "older"})
    part = store.Part(path, SPEC, ARRAYS, units=10)
    assert part.pending == list(range(10))
    part.close()


@pytest.mark.parametrize("junk", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_broken_part_is_begun_anew(tmp_path, junk, artefact):
    path = tmp_path / "again" / artefact.name
    path.parent.mkdir()
    store.part_path(path).write_bytes(junk)
    fill(path)
    assert digest(path) == digest(artefact)


def test_kill_at_random_moments_loses_nothing_and_changes_nothing(artefact, tmp_path):
    path = tmp_path / "killed" / artefact.name
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); import test_store as t, pathlib\n"
        "from actprobe.cache import store; real = store.Part.mark\n"
        "def slow(self, *u): real(self, *u); time.sleep(0.02)\n"
        "store.h5.Part.mark = slow; print('go', flush=True); t.fill(pathlib.Path(sys.argv[1]))"
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        if path.exists():
            break
        args = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
        p = subprocess.Popen(args, stdout=subprocess.PIPE)
        assert p.stdout is not None
        p.stdout.readline()
        time.sleep(rng.uniform(0, 0.12))
        p.send_signal(signal.SIGKILL)
        p.wait()
    fill(path)
    assert digest(path) == digest(artefact)


def test_every_flipped_byte_is_found(artefact):
    whole = artefact.read_bytes()
    rng = np.random.default_rng(1)
    for at in [0, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        artefact.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Damaged):
            store.verify(artefact)


@pytest.mark.parametrize("keep", [0, 10, 3000, -1])
def test_a_truncated_artefact_is_set_aside(artefact, keep):
    artefact.write_bytes(artefact.read_bytes()[:keep])
    with pytest.raises(Damaged, match="set aside"), store.open_h5(artefact):
        pass
    assert not artefact.exists()
    assert artefact.with_name(artefact.name + ".bad").exists()


def test_a_whole_file_stays_when_the_fault_lies_elsewhere(artefact, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(h5py, "File", refused)
    whole = "Too many open files; the file itself is whole"
    with pytest.raises(ActprobeError, match=whole), store.open_h5(artefact):
        pass
    assert artefact.exists()


def test_a_file_that_does_not_open_is_set_aside(artefact):
    content = bytearray(artefact.read_bytes())
    content[:8] = b"not HDF5"
    artefact.write_bytes(content)
    with pytest.raises(Damaged, match="set aside"), store.open_h5(artefact):
        pass
    assert not artefact.exists()


def test_a_file_under_a_wrong_name_is_damaged(artefact):
    with pytest.raises(Damaged, match="expected 0123456789ab"):
        store.quick_check(artefact, "0123456789ab")


def test_an_unfinished_part_is_not_published(tmp_path):
    path = tmp_path / "x.h5"
    fill(path, 5)
    with pytest.raises(Damaged, match="not finished"):
        store.publish([path])


def test_two_processes_on_one_target_do_not_share_a_part(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    mine = store.claim(path)
    with another_process(monkeypatch):
        other = store.claim(path)
        assert mine != other
        assert other.suffix == ".part"
    store.release(mine)
    with another_process(monkeypatch):
        assert store.claim(path) == mine
        store.release(mine)


def test_a_private_part_stays_the_place_until_it_is_released(tmp_path, monkeypatch):
    """The other process seals its part meanwhile: that one is not to be written into."""
    path = tmp_path / f"x.{KEY}.h5"
    mine, ours = store.claim(path), {}
    with another_process(monkeypatch, ours):
        private = store.claim(path)
    assert store.write_h5(path, {"x": np.ones(2)}, SPEC) == mine
    sealed = mine.read_bytes()
    with another_process(monkeypatch, ours):
        assert store.claim(path) == private
        assert store.write_h5(path, {"x": np.ones(2)}, SPEC) == private
        assert mine.read_bytes() == sealed
        store.publish([path], [private])
    store.publish([path], [mine])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("left", ["sealed", "unfinished", "live"])
def test_what_a_process_left_in_a_private_part(tmp_path, monkeypatch, left):
    path = tmp_path / f"x.{KEY}.h5"
    store.claim(path)
    with another_process(monkeypatch):
        private = store.claim(path)
        if left == "unfinished":
            private.write_bytes(b"half")
        else:
            store.write_h5(path, {"x": np.ones(2)}, SPEC)
        if left == "live":
            store.claim(private)  # its lock file is made anew
            os.rename(f"{private}.part.lock", f"{private}.lock")
            assert not files.adopt(private, path, KEY) and private.exists()
            return
        for fd in files._claims.values():  # as its end does
            os.close(fd)
    assert files.adopt(private, path, KEY) == path.exists() == (left == "sealed")
    assert not list(tmp_path.glob(f"{private.name}*"))


def test_a_sealed_part_counts_as_finished_whatever_the_library_versions(artefact, tmp_path):
    path = tmp_path / "again" / artefact.name
    part = store.write_h5(path, {"x": np.zeros(2)}, SPEC, {"torch": "1"})
    content = part.read_bytes()
    assert store.write_h5(path, {"x": np.zeros(2)}, SPEC, {"torch": "2"}) == part
    assert part.read_bytes() == content


def test_two_processes_set_one_damaged_file_aside(artefact):
    store.set_aside(artefact, "broken")
    assert store.set_aside(artefact, "broken").exists()


def test_a_part_that_another_process_published_is_no_error(artefact, tmp_path):
    path = tmp_path / "again" / artefact.name
    part = store.write_h5(path, {"x": np.zeros(2)}, SPEC)
    part.rename(path)
    store.publish([path], [part])
    assert store.verify(path)["spec"] == SPEC


@pytest.mark.parametrize("kind", ["table", "tombstone"])
def test_a_sealed_part_is_not_written_into(tmp_path, kind):
    """Another process on the same cache is about to publish it."""
    path = tmp_path / f"x.{KEY}.parquet"

    def write() -> Path:
        if kind == "table":
            return store.write_table(path, pa.table({"a": [1, 2]}), SPEC)
        return store.write_bad(path, SPEC, "one class only")

    part = write()
    with open(part, "rb") as before:  # what the other process found sealed and now renames
        content = before.read()
        assert write() == part
        before.seek(0)
        assert before.read() == content
    assert [p.name for p in tmp_path.iterdir()] == [part.name]


def test_finished_parts_hold_no_open_files(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        store.write_h5(tmp_path / f"{i}.h5", {"x": np.zeros(2)}, {"i": i})
    assert len(os.listdir("/proc/self/fd")) == before


def test_damage_that_shows_only_when_it_is_read_is_named(artefact):
    """The header is whole; where an array's description stood there is none."""
    content = artefact.read_bytes()
    artefact.write_bytes(content.replace(b"n_tokens", b"n_tokenz"))
    with pytest.raises(Damaged, match=r"set aside as \.bad"), store.open_h5(artefact) as f:
        f["n_tokens"][:]
    assert not artefact.exists() and list(artefact.parent.glob("*.bad*"))


@pytest.mark.parametrize(
    ("part", "by"), [(b'"bad":', b'"bat":'), (b'"size":', b'"sise":'), (b'"facts":{', b'"facts":[')]
)
def test_a_header_that_is_json_but_no_header_is_damaged(artefact, part, by):
    artefact.write_bytes(artefact.read_bytes().replace(part, by))
    with pytest.raises(Damaged):
        store.read_header(artefact)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("no such thing"),
        OSError(28, "No space left"),
        OSError("Can't synchronously write data (file write failed: errno = 28)"),
        OSError("Unable to synchronously open file (another one)"),
    ],
)
def test_errors_of_other_things_pass_through_an_open_artefact(artefact, error):
    with pytest.raises(type(error)), store.open_h5(artefact):
        raise error
    with pytest.raises(ActprobeError, match="is whole"), store.open_h5(artefact) as f:
        f["nope"]


def test_full_disk_says_what_is_needed_and_free(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoSpace, match=r"needs .* MB, .* MB are free"):
        fill(tmp_path / "x.h5")


def test_a_write_that_fails_for_space_is_told_the_same_way(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace, match="it goes on where it stopped"):
        fill(tmp_path / "x.h5")


def test_a_tombstone_tells_its_reason(tmp_path):
    path = tmp_path / f"x.{KEY}.h5"
    store.publish([path], [store.write_bad(path, SPEC, "toy: one class only")])
    assert store.verify(path)["bad"] == "toy: one class only"
    with pytest.raises(BadInput, match="one class only"), store.open_h5(path):
        pass


def test_parquet_artefacts_are_sealed_and_deterministic(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": pa.array([0, 1], pa.int32())})
    paths = [tmp_path / n / f"t.{KEY}.parquet" for n in "ab"]
    for p in paths:
        store.publish([p], [store.write_table(p, table, SPEC, facts={"n": 2})])
    assert digest(paths[0]) == digest(paths[1])
    assert store.verify(paths[0])["facts"] == {"n": 2}
    assert store.read_table(paths[0]).to_pydict() == table.to_pydict()

    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    with pytest.raises(Damaged, match="set aside"):
        store.read_table(paths[0])


def test_a_large_header_is_found(tmp_path):
    spec = {"chunks": ["f" * 64] * 40_000}
    path = tmp_path / "big.h5"
    work = store.write_h5(path, {"x": np.zeros(3)}, spec)
    store.publish([path], [work])
    assert store.verify(path)["spec"] == spec


def test_arrays_are_contiguous_and_mappable(artefact):
    with h5py.File(artefact) as f:
        x = f["x"]
        mapped = np.memmap(artefact, "f4", "r", x.id.get_offset(), x.shape)
        assert np.array_equal(mapped, x[:])
