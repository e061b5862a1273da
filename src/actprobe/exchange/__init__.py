"""Import and export: activation caches of other tools in and out, directions out.

`targets` is light; everything else is imported when first used. Jobs call `run.run`, the command
line `export`.
"""

from __future__ import annotations

from actprobe.imports.layouts import ACTIVATIONS, LATENTS, VECTORS
from actprobe.imports.targets import VERSION, targets

__all__ = ["ACTIVATIONS", "LATENTS", "VECTORS", "VERSION", "targets"]
