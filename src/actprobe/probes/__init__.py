"""Probes: what can be read off activations and SAE latents, by the recipe of a protocol.

`targets` is light to import; `run` makes a batch and is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actprobe.probes.targets import VERSION, targets

if TYPE_CHECKING:
    from actprobe.probes.batch import run

__all__ = ["VERSION", "run", "targets"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from actprobe.probes.batch import run

        return run
    raise AttributeError(name)
