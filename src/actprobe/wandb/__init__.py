"""Dumps at Weights & Biases: locked, fetched once and verified, assembled into artefacts.

Inside this package `import wandb` is the service's own client. Jobs run `fetch.run`,
`assemble.run` and `contexts.run`; what needs the client is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.lazy import lazy
from actprobe.wandb.context_targets import page
from actprobe.wandb.context_targets import targets as context_targets
from actprobe.wandb.digests import is_raw, verify_file
from actprobe.wandb.targets import targets

if TYPE_CHECKING:
    from actprobe.wandb.service import lock, outdated
    from actprobe.wandb.upload import export_wandb, follow

_LAZY = {
    "export_wandb": "upload",
    "follow": "upload",
    "lock": "service",
    "outdated": "service",
}

__all__ = [
    "context_targets",
    "export_wandb",
    "follow",
    "is_raw",
    "lock",
    "outdated",
    "page",
    "targets",
    "verify_file",
]

__getattr__ = lazy(__name__, _LAZY)
