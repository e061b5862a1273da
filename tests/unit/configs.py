"""Changes of a config in a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actprobe.config import Config, plain, resolve


def edited(config: Config, keys: Sequence[str | int], value: Any) -> Config:
    """The config as it is read with this value at these keys."""
    raw = plain(config)
    *way, last = keys
    into = raw
    for key in way:
        into = into[key]
    into[last] = plain(value)
    return resolve(raw)
