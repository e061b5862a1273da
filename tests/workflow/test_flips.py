"""A flipped bit in a cached file that a later job reads is never part of a result (fault row B1)."""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import all_stages
import pytest
from wandb_server import Server

from actprobe import dumps
from actprobe.base.errors import ActprobeError

FLIPS = 200


def in_child(work: Callable[[], object]) -> str:
    """Do the work in a process of its own; returns the message it failed with, "" if it did not.

    What a process remembers of files that it has read must not help the next one.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = ""
        try:
            work()
        except ActprobeError as e:
            said = str(e)
        except BaseException:
            said = "Traceback " + traceback.format_exc()
        os.write(write, said.encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        said = f.read()
    os.waitpid(pid, 0)
    return said


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Every stage, made once: the resolved config and all targets by path."""
    folder = tmp_path_factory.mktemp("flips")
    with pytest.MonkeyPatch.context() as m, Server() as server:
        m.setenv("WANDB_BASE_URL", server.url)
        m.setenv("WANDB_API_KEY", "local-" + "fedcba9876543210" * 3)
        m.setenv("WANDB_ERROR_REPORTING", "false")
        m.setenv("HOME", str(folder / "home"))
        all_stages.write_inputs(folder, server)
        resolved = all_stages.resolved(folder)
        dumps.lock(resolved, "acts")
        for module in ("torch", "sklearn.linear_model", "pandas", "transformers"):
            __import__(module)  # once, not in every child
        assert in_child(lambda: all_stages.make(resolved)) == ""
        yield resolved, all_stages.planned(resolved).targets


def flip(path: Path, rng: random.Random) -> str:
    at, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ bit]))
    return f"bit {bit} of byte {at} of {path}"


@pytest.mark.slow
def test_b1_no_flipped_bit_reaches_a_result(experiment):
    resolved, targets = experiment
    pairs = sorted(
        (parent, path) for path, t in targets.items() for parent in t.inputs if parent in targets
    )
    stages = {(targets[a].stage, targets[b].stage) for a, b in pairs}
    assert len(stages) >= 18 and {("texts", "arrays"), ("arrays", "probes")} <= stages, stages
    rng = random.Random(0)
    told = remade = 0
    for i in range(FLIPS):
        kind = sorted(stages)[i % len(stages)]
        parent, path = rng.choice(
            [p for p in pairs if (targets[p[0]].stage, targets[p[1]].stage) == kind]
        )
        before = {p: Path(p).read_bytes() for p in (parent, path)}
        Path(path).unlink()
        what = flip(Path(parent), rng)
        said = in_child(lambda p=path: all_stages.make(resolved, [p]))
        assert not said.startswith("Traceback"), f"{what}: {said}"
        if said:
            told += 1
            assert not Path(path).exists(), what
            assert not Path(parent).exists(), f"{what} is still there: {said}"
            assert in_child(lambda p=path: all_stages.make(resolved, [p])) == "", what
        else:
            remade += 1
        assert Path(path).read_bytes() == before[path], f"{what} changed {path}"
        assert Path(parent).read_bytes() == before[parent], what
        for left in Path(resolved["cache_dir"]).rglob("*.bad"):
            left.unlink()
    print(f"{told} flips named by a job, {remade} found while planning", file=sys.stderr)
    assert told > FLIPS / 2
