"""Shared fixtures: the folder of real wheels, if there is one, and one thread per test process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


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
