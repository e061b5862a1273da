"""Dumps at Weights & Biases: locked, fetched once and verified, assembled into artefacts.

Jobs run `fetch.run` and `assemble.run`; what needs the service's client, `wandb`, is imported when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.dumps.digests import is_raw, verify_file
from actprobe.dumps.targets import targets

if TYPE_CHECKING:
    from actprobe.dumps.service import lock, outdated

_LAZY = {
    "lock": "service",
    "outdated": "service",
}

__all__ = [
    "is_raw",
    "lock",
    "outdated",
    "targets",
    "verify_file",
]

__getattr__ = lazy(__name__, _LAZY)
