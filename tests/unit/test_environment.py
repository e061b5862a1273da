"""The ranges of pyproject.toml hold the versions of envs/constraints.txt, the source of the rest."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml
from packaging.version import Version


@pytest.fixture
def write(root):
    spec = importlib.util.spec_from_file_location("write", root / "envs" / "write.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXTRAS = [None, "dev", "slurm", "adapters"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_admits_the_locked_version(write, extra):
    for need in write.requirements(extra):
        if need.name != "setuptools":  # pip freeze leaves it out
            assert need.specifier.contains(write.version_of(need)), need


@pytest.mark.parametrize("extra", EXTRAS)
def test_requirements_are_ranges(write, extra):
    for need in write.requirements(extra):
        assert not {s.operator for s in need.specifier} & {"==", "===", "~="}, need


def test_least_versions_are_known_to_work(write):
    """The least version is of the series that is locked; of Snakemake older ones were tried."""
    for need in write.requirements():
        least = [Version(s.version) for s in need.specifier if s.operator == ">="]
        assert len(least) == 1, need
        found = Version(write.version_of(need)).release[: len(least[0].release)]
        assert need.name == "snakemake" or least[0].release == found, need


def test_the_file_for_conda_is_written_from_the_lock(write):
    text = write.CONDA_FILE.read_text()
    assert text == write.conda_environment(), "run: python envs/write.py"
    pip = next(d["pip"] for d in yaml.safe_load(text)["dependencies"] if isinstance(d, dict))
    assert pip == write.pins()


def test_every_rule_names_an_environment_that_exists(root):
    named = [
        (file.parent / name).resolve()
        for file in (root / "workflow" / "rules").glob("*.smk")
        for name in re.findall(r'"(\.\./\.\./envs/[^"]+)"', file.read_text())
    ]
    assert named and all(file.is_file() for file in named)
