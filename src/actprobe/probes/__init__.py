"""Probes: what can be read off activations and SAE latents, by the recipe of a protocol.

`targets` is light to import; `run` makes a batch and is imported when first used, and so is what
other rooms share: AUC, its bootstrap interval, and the components of equal texts and groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.lazy import lazy
from actprobe.probes.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.probes.batch import run
    from actprobe.probes.metrics import Bootstrap, auc
    from actprobe.probes.splits import components

_LAZY = {"Bootstrap": "metrics", "auc": "metrics", "components": "splits", "run": "batch"}

__all__ = ["VERSION", "Bootstrap", "auc", "components", "run", "targets"]

__getattr__ = lazy(__name__, _LAZY)
