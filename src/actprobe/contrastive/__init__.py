"""Contrastive probes: a direction between two classes, found on one dataset, tried on others.

`targets` and `outputs` are light; what reads and writes directions is imported when first used.
Jobs call `run.run` and `results.make_results`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actprobe.contrastive.layout import outputs
from actprobe.contrastive.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.contrastive.artefact import Directions, load
    from actprobe.contrastive.files import runs, write_vectors

_LAZY = {"Directions": "artefact", "load": "artefact", "runs": "files", "write_vectors": "files"}

__all__ = ["VERSION", "Directions", "load", "outputs", "runs", "targets", "write_vectors"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"actprobe.contrastive.{_LAZY[name]}"), name)
    raise AttributeError(name)
