"""The Hugging Face hub: which commit a revision is, which files it has, and their content here.

Files lie where the hub's own client keeps them (`HF_HOME`, `HF_HUB_CACHE`), in its layout, so that
what it or another tool has fetched is used and what is fetched here serves them too. Its client is
asked for commits and lists of files and gives login and addresses; every question has a time limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.files.hub.names import dataset_hint, hint, looks_like_repo, split, split_dataset
from actprobe.files.hub.place import Place

if TYPE_CHECKING:
    from actprobe.files.hub.asking import NotThere, Refused
    from actprobe.files.hub.layout import (
        Entry,
        Listing,
        anywhere,
        lacking,
        listing,
        require_length,
        require_whole,
        snapshot,
    )
    from actprobe.files.hub.progress import Progress
    from actprobe.files.hub.reachable import noted, require_reachable
    from actprobe.files.hub.service import Commit, Hub, of

_LAZY = {
    "Commit": "service",
    "Entry": "layout",
    "Hub": "service",
    "Listing": "layout",
    "NotThere": "asking",
    "Progress": "progress",
    "Refused": "asking",
    "anywhere": "layout",
    "lacking": "layout",
    "listing": "layout",
    "noted": "reachable",
    "of": "service",
    "require_reachable": "reachable",
    "require_length": "layout",
    "require_whole": "layout",
    "snapshot": "layout",
}

__all__ = [
    "Commit",
    "Entry",
    "Hub",
    "Listing",
    "NotThere",
    "Place",
    "Progress",
    "Refused",
    "anywhere",
    "dataset_hint",
    "hint",
    "lacking",
    "listing",
    "looks_like_repo",
    "noted",
    "of",
    "require_length",
    "require_reachable",
    "require_whole",
    "snapshot",
    "split",
    "split_dataset",
]

__getattr__ = lazy(__name__, _LAZY)
