"""Adapters of the LoRA family on top of a model: what a plan sees of them, and how a job applies them.

`planned` is light; `apply` needs the package peft (the extra `adapters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.lazy import lazy
from actprobe.models.adapters.places import Adapter, gathered, given, planned

if TYPE_CHECKING:
    from actprobe.models.adapters.attach import apply, check

_LAZY = {"apply": "attach", "check": "attach"}

__all__ = ["Adapter", "apply", "check", "gathered", "given", "planned"]

__getattr__ = lazy(__name__, _LAZY)
