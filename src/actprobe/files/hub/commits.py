"""Which commit a branch or tag was when it was last asked for, kept in `{cache_dir}/hub.json`.

A cache of results belongs to the commits that it was made from. Without a network a branch is what
it was when the hub last answered here, and not what another tool has fetched meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple


class Known(NamedTuple):
    """A commit, and since when it is known: a date, or where it stands."""

    commit: str
    said: str


def _file(cache_dir: str | Path) -> Path:
    return Path(cache_dir) / "hub.json"


def _read(cache_dir: str | Path) -> dict[str, dict[str, list[str]]]:
    try:
        content = json.loads(_file(cache_dir).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def recall(cache_dir: str | Path, repo: str, revision: str) -> Known | None:
    """The commit that the hub last named here for a revision, and the day."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        commit, day = _read(cache_dir)[repo][revision]
        return Known(str(commit), f"it was on {day}, when the hub last answered here")
    return None


def remember(cache_dir: str | Path, repo: str, revision: str, commit: str) -> None:
    """Keep what the hub answered today; a cache that cannot be written costs only the memory."""
    content, today = _read(cache_dir), time.strftime("%Y-%m-%d")
    if content.get(repo, {}).get(revision) == [commit, today]:
        return
    content.setdefault(repo, {})[revision] = [commit, today]
    with contextlib.suppress(OSError):
        path = _file(cache_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".hub-{os.uname()[1]}-{os.getpid()}")
        part.write_text(json.dumps(content, indent=1, sort_keys=True))
        os.replace(part, path)
