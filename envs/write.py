"""Write envs/actprobe.yaml from the pins in pyproject.toml: python envs/write.py"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONDA_FILE = ROOT / "envs" / "actprobe.yaml"


def pins(extra: str | None = None) -> list[str]:
    """The pinned requirements of the project, or of one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["optional-dependencies"][extra] if extra else project["dependencies"]


def conda_environment() -> str:
    """The environment for `snakemake --sdm conda`: the same packages, by pip, as everywhere else.

    actprobe itself is not in it: the Snakefile puts `src` on PYTHONPATH, and a relative path would
    not survive Snakemake's copy of this file.
    """
    lines = [f"      - {p!r}".replace("'", '"') if ";" not in p else f"      - {p}" for p in pins()]
    head = [
        "# Written by envs/write.py from pyproject.toml; do not edit.",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        "  - python >=3.11,<3.14",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join(head + lines) + "\n"


if __name__ == "__main__":
    CONDA_FILE.write_text(conda_environment())
