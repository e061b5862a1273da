"""LoRA weights: collections of files, and features of their weights.

What is needed to plan (names, targets, labels, widths) is light to import; everything else is imported
when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.lora import classes, labels
from actprobe.lora.catalog import CONTROLS, REPRESENTATIONS
from actprobe.lora.collection import labels as label_rows
from actprobe.lora.collection import labels_digest
from actprobe.lora.effort import MODULES
from actprobe.lora.effort import columns as width
from actprobe.lora.names import matches
from actprobe.lora.records import IndexSpec, Told
from actprobe.lora.targets import Collection, collections, computed, targets
from actprobe.lora.telling import REFUSED, telling

if TYPE_CHECKING:
    from actprobe.lora.controls import joint
    from actprobe.lora.features import Features, load
    from actprobe.lora.index import Index
    from actprobe.lora.refusals import left_out

_LAZY = {
    "Features": "features",
    "Index": "index",
    "joint": "controls",
    "load": "features",
    "left_out": "refusals",
}

__all__ = [
    "CONTROLS",
    "MODULES",
    "REFUSED",
    "REPRESENTATIONS",
    "Collection",
    "Features",
    "Index",
    "IndexSpec",
    "Told",
    "classes",
    "collections",
    "computed",
    "joint",
    "label_rows",
    "labels",
    "labels_digest",
    "left_out",
    "load",
    "matches",
    "targets",
    "telling",
    "width",
]

__getattr__ = lazy(__name__, _LAZY)
