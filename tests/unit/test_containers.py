"""The container recipes install what `make` installs, and copy what a run needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest


def installs(text: str) -> list[str]:
    """The arguments of every `python -m pip install`, in order."""
    return re.findall(r"python -m pip install (.*)", text)


def copied(root) -> dict[str, set[str]]:
    """Recipe -> what it copies from the repository."""
    docker = re.findall(r"^COPY (.*) \S+$", (root / "envs" / "Dockerfile").read_text(), re.M)
    apptainer = re.findall(
        r"^    (\S+) /opt/actprobe/\S+$", (root / "envs" / "actprobe.def").read_text(), re.M
    )
    return {"Dockerfile": {p for line in docker for p in line.split()}, "def": set(apptainer)}


@pytest.mark.parametrize("recipe", ["Dockerfile", "actprobe.def"])
def test_recipes_take_the_steps_of_the_makefile(root, recipe):
    setup = re.search(r"^\$\(SETUP\):.*?touch", (root / "Makefile").read_text(), re.M | re.S)
    assert setup
    made = [line for line in installs(setup[0]) if "upgrade" not in line]
    expected = [line.replace("$$", "$").replace(".[dev]", ".[slurm]") for line in made]
    assert len(expected) == 2
    assert installs((root / "envs" / recipe).read_text()) == expected


def test_both_recipes_start_from_a_python_that_the_project_supports(root):
    for recipe, word in (("Dockerfile", "FROM"), ("actprobe.def", "From:")):
        text = (root / "envs" / recipe).read_text()
        assert re.search(rf"^{word} python:3\.1[1-3]-slim$", text, re.M)


def test_the_slurm_plugin_is_pinned(root):
    locked = (root / "envs" / "constraints.txt").read_text().split()
    for name in ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep"):
        assert any(re.fullmatch(rf"{name}==[\d.]+", line) for line in locked)


def test_what_is_copied_is_enough_to_plan_a_run(root, tmp_path):
    docker, apptainer = copied(root).values()
    assert docker == apptainer
    for name in docker:
        source, to = root / name, tmp_path / "opt" / name
        to.parent.mkdir(exist_ok=True)
        shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)
    (tmp_path / "work").mkdir()
    p = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-s", str(tmp_path / "opt" / "Snakefile"),
         "--directory", str(tmp_path / "work"), "--configfile",
         str(tmp_path / "opt" / "config" / "config.yaml")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "opt" / "src")},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert p.returncode == 0, p.stdout + p.stderr
    assert "plan:" in p.stderr
