"""LoRA weights: collections of files, features of their weights, and classifiers on these.

`targets` (config to targets) is light to import; everything else is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actprobe.lora.layout import outputs
from actprobe.lora.targets import targets

if TYPE_CHECKING:
    from actprobe.lora.features import Features, load
    from actprobe.lora.index import Index

_LAZY = {"Features": "features", "Index": "index", "load": "features"}

__all__ = ["Features", "Index", "load", "outputs", "targets"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"actprobe.lora.{_LAZY[name]}"), name)
    raise AttributeError(name)
