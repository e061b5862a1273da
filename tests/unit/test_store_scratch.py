"""Parts may be filled on a folder of the machine and come back sealed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from actprobe.base import keys
from actprobe.cache import store

SPEC = {"stage": "s"}
SHAPES = {"x": ((4, 2), "f4")}


@pytest.fixture
def scratch(tmp_path):
    store.use_scratch(tmp_path / "scratch")
    yield tmp_path / "scratch"
    store.use_scratch(None)


def fill(part, units) -> None:
    for u in units:
        part["x"][u] = u
        part.mark(u)


def path_of(folder) -> str:
    return f"{folder}/t.{keys.short(keys.spec_key(SPEC))}.h5"


def test_a_part_grows_in_scratch_and_comes_back_sealed(tmp_path, scratch):
    path = path_of(tmp_path / "cache")
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        fill(part, part.pending)
        assert part.work.parent == scratch and not store.part_path(path).exists()
        made = part.finish()
    assert made == store.part_path(path) and not list(scratch.iterdir())
    store.publish([path])
    store.use_scratch(None)
    plain = store.write_h5(tmp_path / "plain.h5", {"x": np.repeat(np.arange(4), 2).reshape(4, 2)
                           .astype("f4")}, SPEC)  # fmt: skip
    with store.open_h5(path) as f:
        assert f["x"][3].tolist() == [3, 3]
    assert store.verify(path)["key"] == store.read_header(plain)["key"]


def test_the_same_machine_goes_on_with_what_it_began(tmp_path, scratch):
    path = path_of(tmp_path)
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        fill(part, [0, 1])
    store.release(store.part_path(path))
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        assert part.pending == [2, 3]
        fill(part, part.pending)
        part.finish()
    assert store.finished_part(path, keys.spec_key(SPEC))


def test_a_part_that_was_begun_beside_its_target_stays_there(tmp_path, scratch):
    path = path_of(tmp_path)
    store.use_scratch(None)
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        fill(part, [0])
    store.release(store.part_path(path))
    store.use_scratch(scratch)
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        assert part.work == store.part_path(path) and part.pending == [1, 2, 3]


def test_an_interrupted_copy_is_no_part(tmp_path, scratch, monkeypatch):
    path = path_of(tmp_path)
    with store.Part(path, SPEC, SHAPES, units=4) as part:
        fill(part, part.pending)
        with monkeypatch.context() as m, pytest.raises(OSError):
            m.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("lost")))
            part.finish()
    assert not store.part_path(path).exists() and len(list(scratch.iterdir())) == 1
