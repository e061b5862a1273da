"""What a job reads is what was sealed (fault rows B1, B6, C8): nothing altered becomes a result."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from actprobe.base import keys
from actprobe.base.errors import Damaged
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.store import files
from actprobe.cache.store.journal import Journal
from actprobe.experiment import upkeep

ARRAYS = {"x": ((12, 3), "f4"), "mask": ((12,), "u1"), "shape": ((), "i8")}


def path_of(folder: Path, spec: dict, ext: str = "h5") -> Path:
    return folder / f"{spec['stage']}.{keys.short(keys.spec_key(spec))}.{ext}"


def make(path: Path, spec: dict, value: float = 1, inputs: tuple[Path, ...] = ()) -> Path:
    store.sources({str(path): tuple(map(str, inputs))})
    arrays = {"x": np.full((5, 4), value, np.float32)}
    store.publish([path], [store.write_h5(path, arrays, spec)])
    return path


def flip(path: Path, at: int, bit: int = 1) -> None:
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ bit]))


@pytest.mark.parametrize("kind", ["h5", "parquet"])
def test_b1_any_flipped_bit_is_found_when_the_file_is_read(tmp_path, kind):
    spec = {"stage": "s"}
    path = path_of(tmp_path, spec, kind)
    if kind == "h5":
        make(path, spec)
    else:
        table = pa.table({"auc": np.linspace(0, 1, 50)})
        store.publish([path], [store.write_table(path, table, spec)])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 40).tolist():
        path.write_bytes(whole)
        flip(path, at, 1 << int(rng.integers(8)))
        with pytest.raises(Damaged, match=r"set aside as \.bad"):
            if kind == "h5":
                with store.open_h5(path) as f:
                    f["x"][:]
            else:
                store.read_table(path)
        assert not path.exists()


def test_b1_a_flip_between_two_reads_of_one_process_is_found(tmp_path):
    path = make(path_of(tmp_path, {"stage": "s"}), {"stage": "s"})
    with store.open_h5(path):
        pass
    flip(path, os.path.getsize(path) - 1)
    with pytest.raises(Damaged), store.open_h5(path):
        pass


def test_b1_a_file_is_hashed_once_per_process(tmp_path, monkeypatch):
    path = make(path_of(tmp_path, {"stage": "s"}), {"stage": "s"})
    read = []
    monkeypatch.setattr(files, "verify", lambda p: read.append(p))
    for _ in range(3):
        with store.open_h5(path):
            pass
    assert len(read) == 1


def test_b1_an_altered_header_is_found_without_reading_the_data(tmp_path):
    spec, facts = {"stage": "s", "l": 4}, {"n_truncated": 7}
    path = path_of(tmp_path, spec)
    store.publish([path], [store.write_h5(path, {"x": np.zeros(3)}, spec, facts)])
    content = path.read_bytes()
    for old, new in ((b'"n_truncated":7', b'"n_truncated":6'), (b'"l":4', b'"l":5')):
        path.write_bytes(content.replace(old, new))
        with pytest.raises(Damaged, match="not the one that was written"):
            store.read_header(path)


def test_b1_a_header_holds_the_seals_of_what_it_was_made_from(tmp_path):
    parent = make(path_of(tmp_path, {"stage": "a"}), {"stage": "a"})
    child = make(path_of(tmp_path, {"stage": "b"}), {"stage": "b"}, inputs=(parent,))
    header = store.read_header(parent)
    assert store.read_header(child)["from"] == {header["key"]: header["seal"]["sha256"]}


@pytest.fixture
def family(tmp_path):
    """A file, one made from it, one made from that, and one that has nothing to do with them."""
    a = make(path_of(tmp_path, {"stage": "a"}), {"stage": "a"})
    b = make(path_of(tmp_path, {"stage": "b"}), {"stage": "b"}, inputs=(a,))
    c = make(path_of(tmp_path, {"stage": "c"}), {"stage": "c"}, inputs=(b,))
    d = make(path_of(tmp_path, {"stage": "d"}), {"stage": "d"})
    return a, b, c, d


@pytest.mark.parametrize("how", ["flipped", "replaced"])
def test_b1_verify_names_the_children_and_sets_them_aside(family, tmp_path, how):
    a, b, c, d = family
    if how == "flipped":
        flip(a, os.path.getsize(a) - 1)
    else:
        a.unlink()
        make(a, {"stage": "a"}, value=2)
    report = upkeep.verify([tmp_path])
    assert [*report.damaged] == ([str(a)] if how == "flipped" else [])
    assert sorted(report.children) == [str(b), str(c)]
    assert report.checked == 4 and all(p.exists() for p in family)
    upkeep.verify([tmp_path], set_aside=True)
    assert not b.exists() and not c.exists() and d.exists()
    assert a.exists() == (how == "replaced")


def test_c8_verify_passes_over_what_vanishes_and_names_folders_and_dead_links(
    family, tmp_path, monkeypatch
):
    a, b, c, d = family
    b.unlink()
    b.symlink_to(tmp_path / "gone")
    c.unlink()
    c.mkdir()
    real = store.verify

    def verify(path):
        if path == a:
            a.unlink()
        return real(path)

    monkeypatch.setattr(upkeep.store, "verify", verify)
    report = upkeep.verify([tmp_path])
    assert report.damaged == {
        str(b): f"a link to {tmp_path / 'gone'}, which is not there",
        str(c): "a folder, expected a file",
    }
    assert report.checked == 3
    upkeep.verify([tmp_path], set_aside=True)
    assert {p.name for p in tmp_path.iterdir()} == {f"{b.name}.bad", f"{c.name}.bad", d.name}


def begin(path: Path, spec: dict) -> store.Part:
    return store.Part(path, spec, ARRAYS, units=4)


def fill(part: store.Part, units) -> None:
    for u in units:
        rows = [u, u + 4, u + 8]
        part["x"][rows] = np.arange(9).reshape(3, 3) + u
        part["mask"][3 * u : 3 * u + 3] = u
        if u == 0:
            part["shape"][()] = 7
        part.mark(u)


def test_b1_a_resumed_part_trusts_only_what_was_written(tmp_path):
    spec = {"stage": "s"}
    whole, path = path_of(tmp_path / "whole", spec), path_of(tmp_path / "cut", spec)
    with begin(whole, spec) as part:
        fill(part, part.pending)
        store.publish([whole], [part.finish()])
    with begin(path, spec) as part:
        fill(part, [0, 1, 2])
        work, offset = part.work, part["x"]._data.id.get_offset()
    flip(work, offset + 4 * 3)  # row 1, of unit 1
    with begin(path, spec) as part:
        assert part.pending == [1, 3]
        fill(part, part.pending)
        store.publish([path], [part.finish()])
    assert path.read_bytes() == whole.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_b1_a_torn_or_altered_journal_counts_for_nothing(tmp_path):
    spec = {"stage": "s"}
    path = path_of(tmp_path, spec)
    with begin(path, spec) as part:
        fill(part, [0, 1])
        journal = Path(f"{part.work}.journal")
    text = journal.read_text()
    for content, left in [
        (text[:-5], [1, 2, 3]),
        (text.replace("[0]", "[2]"), [0, 2, 3]),
        ("", [0, 1, 2, 3]),
    ]:
        journal.write_text(content)
        with begin(path, spec) as part:
            assert part.pending == left


def test_b1_a_part_whose_sources_were_replaced_is_begun_anew(tmp_path):
    parent, spec = make(path_of(tmp_path, {"stage": "a"}), {"stage": "a"}), {"stage": "s"}
    path = path_of(tmp_path, spec)
    store.sources({str(path): (str(parent),)})
    with begin(path, spec) as part:
        fill(part, [0, 1])
    with begin(path, spec) as part:
        assert part.pending == [2, 3]
    parent.unlink()
    make(parent, {"stage": "a"}, value=3)
    with begin(path, spec) as part:
        assert part.pending == [0, 1, 2, 3]


def test_b1_an_altered_memory_of_digests_is_not_used(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 100)
    old = file.stat().st_mtime - 3600
    os.utime(file, (old, old))
    memo = DigestMemo(tmp_path)
    memo._known[str(file)] = [*keys._stamp(str(file)), "0" * 64]
    memo._dirty = True
    memo.save()
    assert DigestMemo(tmp_path).sha256(file) == "0" * 64  # as remembered
    text = memo.file.read_text()
    memo.file.write_text(text.replace("0000", "0001", 1))
    assert DigestMemo(tmp_path).sha256(file) == keys.file_sha256(file)


def test_journals_join_neighbouring_runs(tmp_path):
    journal = Journal(tmp_path / "w")
    for at in range(3):
        journal.wrote("x", [at, at + 1], np.zeros(1, "f4"))
    assert journal._wrote["x"][0] == [0, 3]
