"""Projects that were run to their end, and projects that were never run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from project import Project, save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model) -> Project:
    """A project that was run to its end; copy it with `fork`, never change it."""
    project = Project(tmp_path_factory.mktemp("finished"), tiny_model)
    project.snakemake()
    return project


@pytest.fixture
def fork(finished, tmp_path):
    """A private copy of the finished project (modification times kept)."""
    folder = tmp_path / "project"
    subprocess.run(["cp", "-a", str(finished.folder), str(folder)], check=True)
    return Project(folder, Path("."), ()).copy_of(finished)


@pytest.fixture
def empty(tmp_path, tiny_model) -> Project:
    """A project that was never run."""
    return Project(tmp_path, tiny_model)
