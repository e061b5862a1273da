"""Import and export: activation caches of other tools in and out, directions out.

`targets` is light; everything else is imported when first used. Jobs call `run.run`, the command
line `export.vectors` and `export.activations`.
"""

from __future__ import annotations

from actprobe.interchange.layouts import ACTIVATIONS, VECTORS
from actprobe.interchange.targets import VERSION, targets

__all__ = ["ACTIVATIONS", "VECTORS", "VERSION", "targets"]
