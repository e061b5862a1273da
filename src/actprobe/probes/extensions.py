"""Files of the user's own that register methods and metrics: `extensions` of the config.

They are run as Python code, in the plan, in jobs and where results are made. What a fit uses of a file
makes the file's digest part of its key; what that file imports in turn is not looked at.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.probes import methods, metrics


@dataclass(frozen=True)
class Extension:
    """A file that was run: its digest, and the names that it registered."""

    sha256: str
    methods: frozenset[str]
    metrics: frozenset[str]


_LOADED: dict[str, Extension] = {}


def load(paths: Iterable[str]) -> None:
    """Run these files, each once. Raises ConfigError naming one that cannot be read or fails."""
    for path in paths:
        try:
            content = Path(path).expanduser().read_bytes()
        except OSError as e:
            raise ConfigError(f"extensions: {path} cannot be read: {e.strerror}") from e
        digest = hashlib.sha256(content).hexdigest()
        if path not in _LOADED:
            _LOADED[path] = _run(path, digest)
        elif _LOADED[path].sha256 != digest:
            raise ConfigError(f"extensions: {path} changed while this process ran; start it again")


def _run(path: str, digest: str) -> Extension:
    before = set(methods.families()), set(metrics.registered())
    spec = importlib.util.spec_from_file_location(
        f"actprobe_extension_{digest[:16]}", Path(path).expanduser()
    )
    if spec is None or spec.loader is None:
        raise ConfigError(f"extensions: {path} is no Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # estimators are named by it in errors and copies
    try:
        spec.loader.exec_module(module)
    except ConfigError as e:
        raise ConfigError(f"extensions: {path}: {e}") from e
    except Exception as e:
        raise ConfigError(f"extensions: {path} failed: {type(e).__name__}: {e}") from e
    made = set(methods.families()) - before[0], set(metrics.registered()) - before[1]
    if not any(made):
        raise ConfigError(f"extensions: {path} registers neither a method nor a metric")
    return Extension(digest, *map(frozenset, made))


def paths() -> tuple[str, ...]:
    """The files that were run."""
    return tuple(_LOADED)


def used(family: str) -> dict[str, str]:
    """Digests, by name of the file, of what the fits of a family depend on: who registered it, and
    everybody who registered a metric."""
    return {
        Path(path).name: e.sha256
        for path, e in sorted(_LOADED.items())
        if family in e.methods or e.metrics
    }


def loaded(config: Mapping[str, Any]) -> None:
    """`load` what a config names."""
    load(config.get("extensions") or ())
