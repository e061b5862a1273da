"""Contrastive probes: a direction between two classes, found on one dataset, tried on others.

`targets` and `outputs` are light; what reads and writes directions is imported when first used.
Jobs call `run.run` and `results.make_results`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.contrastive.layout import outputs
from actprobe.contrastive.targets import VERSION, targets
from actprobe.lazy import lazy

if TYPE_CHECKING:
    from actprobe.contrastive.artefact import Directions, load
    from actprobe.contrastive.files import runs, write_vectors
    from actprobe.contrastive.results import told

_LAZY = {"Directions": "artefact", "load": "artefact", "runs": "files", "told": "results",
         "write_vectors": "files"}  # fmt: skip

__all__ = ["VERSION", "Directions", "load", "outputs", "runs", "targets", "told",
           "write_vectors"]  # fmt: skip

__getattr__ = lazy(__name__, _LAZY)
