"""LoRA weights: collections of files, features of their weights, and classifiers on these.

`targets` (config to targets) is light to import; everything else is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.lazy import lazy
from actprobe.lora.layout import outputs, telling
from actprobe.lora.targets import targets

if TYPE_CHECKING:
    from actprobe.lora.features import Features, load
    from actprobe.lora.index import Index
    from actprobe.lora.report import told

_LAZY = {"Features": "features", "Index": "index", "load": "features", "told": "report"}

__all__ = ["Features", "Index", "load", "outputs", "targets", "telling", "told"]

__getattr__ = lazy(__name__, _LAZY)
