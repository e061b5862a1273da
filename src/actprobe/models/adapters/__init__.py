"""Adapters of the LoRA family on top of a model: what a plan sees of them, and how a job applies them.

`planned` is light; `put_on` and `worn` need the package peft (the extra `adapters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.models.adapters.places import Adapter, gathered, given, planned

if TYPE_CHECKING:
    from actprobe.models.adapters.attach import check, put_on, worn

_LAZY = {"check": "attach", "put_on": "attach", "worn": "attach"}

__all__ = ["Adapter", "check", "gathered", "given", "planned", "put_on", "worn"]

__getattr__ = lazy(__name__, _LAZY)
