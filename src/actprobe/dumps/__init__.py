"""Dumps at Weights & Biases: locked, fetched once and verified, assembled into artefacts.

Jobs run `fetch.run` and `assemble.run`; what needs the service's client, `wandb`, is imported when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.dumps.digests import is_raw, verify_file
from actprobe.dumps.targets import targets
from actprobe.lazy import lazy

if TYPE_CHECKING:
    from actprobe.dumps.service import lock, outdated
    from actprobe.dumps.upload import export_wandb, follow

_LAZY = {
    "export_wandb": "upload",
    "follow": "upload",
    "lock": "service",
    "outdated": "service",
}

__all__ = [
    "export_wandb",
    "follow",
    "is_raw",
    "lock",
    "outdated",
    "targets",
    "verify_file",
]

__getattr__ = lazy(__name__, _LAZY)
