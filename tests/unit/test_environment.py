"""The pins of pyproject.toml, envs/constraints.txt and envs/actprobe.yaml are the same."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml


@pytest.fixture
def write(root):
    spec = importlib.util.spec_from_file_location("write", root / "envs" / "write.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version(pin: str) -> tuple[str, str]:
    name, _, found = pin.partition(";")[0].partition("==")
    return re.sub(r"[-_.]+", "-", name).lower().strip(), found.strip()


def test_every_dependency_is_pinned(write):
    assert all("==" in p for p in write.pins())


@pytest.mark.parametrize("extra", [None, "dev", "slurm"])
def test_constraints_agree_with_the_pins(root, write, extra):
    lines = (root / "envs" / "constraints.txt").read_text().split()
    locked = dict(version(line) for line in lines if "==" in line)
    for name, pinned in map(version, write.pins(extra)):
        if name != "xgboost":  # the macOS name of xgboost-cpu
            assert locked.get(name) == pinned or not pinned, name
            assert name in locked


def test_conda_environment_is_written_from_the_pins(write):
    text = write.CONDA_FILE.read_text()
    assert text == write.conda_environment(), "run: python envs/write.py"
    pip = next(d["pip"] for d in yaml.safe_load(text)["dependencies"] if isinstance(d, dict))
    assert pip == write.pins()


def test_every_rule_names_an_environment_that_exists(root):
    for file in (root / "workflow" / "rules").glob("*.smk"):
        for name in re.findall(r'"(\.\./\.\./envs/[^"]+)"', file.read_text()):
            assert (file.parent / name).resolve().is_file()
