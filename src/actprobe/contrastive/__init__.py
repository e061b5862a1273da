"""Contrastive probes: a direction between two classes, found on one dataset, tried on others.

`targets` and `outputs` are light; `load` (h5py) is imported when first used. Jobs call `run.run`
and `results.make_results`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actprobe.contrastive.layout import outputs
from actprobe.contrastive.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.contrastive.artefact import Directions, load

_LAZY = {"Directions", "load"}

__all__ = ["VERSION", "Directions", "load", "outputs", "targets"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from actprobe.contrastive import artefact

        return getattr(artefact, name)
    raise AttributeError(name)
