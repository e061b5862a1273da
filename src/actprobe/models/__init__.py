"""Models: which activations a config asks for, and how they are read from a model.

`targets` is light; `run.run` makes a batch. `open_activations` and `load_activations` (h5py) and
the batch plan are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.models.bos import planned as planned_bos
from actprobe.models.bos import rows_begin_with_bos
from actprobe.models.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.models.artefact import Activations, load_activations, open_activations
    from actprobe.models.batches import batch_plan

_LAZY = {
    "Activations": "artefact",
    "batch_plan": "batches",
    "load_activations": "artefact",
    "open_activations": "artefact",
}

__all__ = [
    "VERSION",
    "Activations",
    "batch_plan",
    "load_activations",
    "open_activations",
    "planned_bos",
    "rows_begin_with_bos",
    "targets",
]

__getattr__ = lazy(__name__, _LAZY)
