"""actprobe: reproducible probing experiments on the inside of neural networks.

import actprobe

run = actprobe.load("config/config.yaml")     # reads; computes nothing
probe = run.probe("spam", "smollm2/resid_post.15.mean", "logreg")
probe.save("folder")
probe = actprobe.load_probe("folder")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy as _lazy

if TYPE_CHECKING:
    from actprobe.face import Probe, Run, attach, import_probe, load, load_probe

__version__ = "0.1.0"

__all__ = ["Probe", "Run", "__version__", "attach", "import_probe", "load", "load_probe"]

__getattr__ = _lazy(__name__, dict.fromkeys(__all__, "face"))
