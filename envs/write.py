"""Write envs/actprobe.yaml: the packages of pyproject.toml at the versions of envs/constraints.txt.

python envs/write.py
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONDA_FILE = ROOT / "envs" / "actprobe.yaml"
_MACOS = {"xgboost": "xgboost-cpu"}  # the name there, and the name under which it is locked


def requirements(extra: str | None = None) -> list[Requirement]:
    """What the project needs, or one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(text) for text in found]


def locked() -> dict[str, str]:
    """Package -> version, by the names of envs/constraints.txt in lower case with hyphens."""
    lines = (ROOT / "envs" / "constraints.txt").read_text().split()
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines)}


def version_of(need: Requirement) -> str:
    """The locked version of a requirement."""
    name = _plain(need.name)
    return locked()[_MACOS.get(name, name)]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[str]:
    """The requirements of the project, each at its locked version."""
    return [
        f"{r.name}=={version_of(r)}" + (f"; {r.marker}" if r.marker else "") for r in requirements()
    ]


def conda_environment() -> str:
    """The environment for `snakemake --sdm conda`: the same packages, by pip, as everywhere else.

    actprobe itself is not in it: jobs find it on PYTHONPATH, and a relative path would not survive
    Snakemake's copy of this file.
    """
    head = [
        "# Written by envs/write.py from pyproject.toml and envs/constraints.txt; do not edit.",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        "  - python >=3.11,<3.14",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([*head, *(f"      - {pin!r}" for pin in pins())]) + "\n"


if __name__ == "__main__":
    CONDA_FILE.write_text(conda_environment())
