"""Protocols of LoRA probes: splits, classifiers and grids, kept as data in `protocols/*.yaml`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from actprobe.config import nearest, require_plain
from actprobe.errors import ConfigError

FOLDER = Path(__file__).parent / "protocols"
CONTROL = "tree"  # the method that every protocol has: the recipe is always read by it, too
_DEPTHS = (1, 2, 4, 8, 16)
SCHEMA = Path(__file__).parents[3] / "workflow" / "schemas" / "lora-protocol.schema.yaml"


def names() -> list[str]:
    """The protocols that come with the project."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


@lru_cache
def load(name: str) -> dict[str, Any]:
    """The protocol of this name, or in this file when the name ends in .yaml, checked.

    Raises ConfigError with the place and what is wrong.
    """
    from jsonschema import Draft202012Validator

    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.exists():
        raise ConfigError(f"unknown LoRA protocol {name!r}; {nearest(name, names())}")
    try:
        protocol = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ConfigError(f"protocol {name}: {path} cannot be read: {e}") from e
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    for error in Draft202012Validator(schema).iter_errors(protocol):
        where = ".".join(map(str, error.path)) or "the file"
        raise ConfigError(f"protocol {path}: {where}: {error.message}")
    require_plain(protocol, f"protocol {path}")
    protocol["methods"].setdefault(
        CONTROL, {"family": "tree", "depth": list(_DEPTHS), "default": False}
    )
    return protocol


def recipe(protocol: dict[str, Any], method: str) -> dict[str, Any]:
    """What of a protocol decides the results of one method."""
    return {
        "seeds": protocol["seeds"],
        "split": protocol["split"],
        "constant": protocol["constant"],
        "method": protocol["methods"][method],
    }
