"""Arrays: features that another tool or a person made, one row per text, as a source of probes.

`targets` is light; a job calls `run.run`.
"""

from __future__ import annotations

from actprobe.arrays.targets import VERSION, targets

__all__ = ["VERSION", "targets"]
