"""Fits of tokens and of LoRA features, killed before each of their files is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from actprobe.cache.store import tables
from actprobe.cache import store
import test_probes_killed as own

left = int(sys.argv[3])
whole = tables.write_table

def write(path, *args, **more):
    global left
    if "/probes/" in str(path):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    return whole(path, *args, **more)

store.write_table = write
getattr(own, sys.argv[1])(Path(sys.argv[2]))
"""


def tokens(folder: Path) -> None:
    """Attention probes of the tokens of three datasets."""
    from probes_inputs import Cache
    from test_probes_tokens import add_tokens, ragged

    from actprobe.cache import plan
    from actprobe.experiment import targets as experiment

    cache = Cache(folder / "cache")
    for n, name in enumerate("abc"):
        x, y = ragged(60, seed=n)
        cache.texts(name, y)
        add_tokens(cache, name, x)
    mine = folder / "mine.yaml"
    mine.write_text("name: mine\nextends: saeprobes-paper\nmethods: {attention: {steps: 20}}\n")
    config = cache.config(
        {"protocol": str(mine), "settings": ["multi_token"], "methods": ["attention"]}
    )
    planned = cache.plan(config)
    if plan.take_over(planned):
        planned = cache.plan(config)
    for batch in planned.in_order():
        experiment.run(batch, config, 1)


def loras(folder: Path) -> None:
    """Ridge probes of a collection, for each label and representation and for one kind of module."""
    import lora_tools as tools

    from actprobe.cache import plan
    from actprobe.lora import synthetic

    files = folder.parent / "inputs"  # of both runs
    if not (files / "labels.csv").exists():
        synthetic.write(files, per_class=8)
    collection = {
        "files": str(files / "files"), "labels": str(files / "labels.csv"),
        "representations": ["left_projector", "stats"],
    }  # fmt: skip
    entry = {"sources": ["c/*"], "methods": ["ridge"], "columns": ["*", "*.attn1.*"]}
    config = tools.resolved(folder, {"c": collection}, [entry])
    plan.take_over(tools.planned(config))
    tools.run(config)


@pytest.mark.parametrize(("kind", "files"), [("tokens", 3), ("loras", 8)])
def test_killed_at_every_file_the_bytes_are_equal(tmp_path, kind, files):
    def start(folder, left):
        folder.mkdir(exist_ok=True)
        code = KILLED.format(paths=[str(HERE), str(HERE.parent)])
        return subprocess.run(
            [sys.executable, "-c", code, kind, str(folder), str(left)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip

    def bytes_of(folder):
        made = (folder / "cache" / "probes").rglob("*.parquet")
        return {p.name: p.read_bytes() for p in made}

    done = start(tmp_path / "whole", -1)
    assert done.returncode == 0, done.stderr
    whole = bytes_of(tmp_path / "whole")
    assert len(whole) == files
    deaths = 0
    while (done := start(tmp_path / "killed", 1)).returncode:
        assert done.returncode == -9, done.stderr
        deaths += 1
    assert deaths == files - 1 and bytes_of(tmp_path / "killed") == whole
