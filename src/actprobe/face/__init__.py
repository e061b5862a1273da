"""The Python face: an experiment's files as tables and matrices, and probes to use and to pass on.

Everything is imported when first used. `commands` adds the commands of the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy

if TYPE_CHECKING:
    from actprobe.face.folder import load_probe
    from actprobe.face.foreign import import_probe
    from actprobe.face.probe import Probe
    from actprobe.face.run import Run, load
    from actprobe.face.watch import attach

_LAZY = {
    "Probe": "probe",
    "Run": "run",
    "attach": "watch",
    "import_probe": "foreign",
    "load": "run",
    "load_probe": "folder",
}

__all__ = ["Probe", "Run", "attach", "import_probe", "load", "load_probe"]

__getattr__ = lazy(__name__, _LAZY)
