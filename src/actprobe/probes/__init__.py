"""Probes: what can be read off activations and SAE latents, by the recipe of a protocol.

`targets`, `requirements`, `unfit` and `remarks` are light to import; `run` makes a batch and is
imported when first used, and so is what other rooms share: AUC, its interval, the components of equal
texts and groups, and labels exchanged within them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.probes.needs import remarks, requirements, unfit
from actprobe.probes.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.probes.batch import run
    from actprobe.probes.intervals import auc_interval
    from actprobe.probes.metrics.binary import auc
    from actprobe.probes.permute import arrangements, exchanged
    from actprobe.probes.splits import components

_LAZY = {
    "arrangements": "permute",
    "auc": "metrics.binary",
    "auc_interval": "intervals",
    "components": "splits",
    "exchanged": "permute",
    "run": "batch",
}

__all__ = [
    "VERSION",
    "arrangements",
    "auc",
    "auc_interval",
    "components",
    "exchanged",
    "remarks",
    "requirements",
    "run",
    "targets",
    "unfit",
]

__getattr__ = lazy(__name__, _LAZY)
