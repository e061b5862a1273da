"""Files of datasets on the hub: fetched into the cache as they are, and read with their digest."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import Damaged
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.plan import Batch
from actprobe.files import hub
from actprobe.texts.hub_files import STAGE
from actprobe.texts.records import HubTarget

log = logging.getLogger(__name__)

_CHUNK = 1 << 22


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Fetch the files of a batch, check them and put them into the cache."""
    memo = DigestMemo(config["cache_dir"])
    service = hub.Hub(memo, patient=True)
    for t in batch.targets:
        fetch(t, service)
    memo.save()


def fetch(t: HubTarget, service: hub.Hub) -> None:
    """Have one file in its place: a second name of the one in the hub cache, or a copy.

    Raises Unreachable, ConfigError or Damaged by cause.
    """
    repo, commit, name = t.args.repo, t.args.revision, t.args.file
    service.fetch(repo, commit, [name], f"hub:{repo.removeprefix('datasets/')}/{name}")
    source = (hub.snapshot(repo, commit) / name).resolve()
    part = store.claim(t.path)
    try:
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # another file system
            store.require_space(part, t.args.size)
            shutil.copyfile(source, part)
        if t.key not in _digests(part):
            part.unlink()
            raise Damaged(f"{source}: not the bytes that the hub lists; run again")
        os.replace(part, t.path)
    finally:
        store.release(part)
    log.info("hub: %s/%s at %s verified", repo.removeprefix("datasets/"), name, commit[:8])


def read(path: str | Path) -> bytes:
    """The bytes of a fetched file; one that is not what its name says is set aside, and Damaged."""
    try:
        store.once(path, verify)
    except Damaged as e:
        store.set_aside(path, str(e))
        raise Damaged(f"{e}. It was set aside as .bad; run again to fetch it anew") from e
    return Path(path).read_bytes()


def is_fetched(path: str | Path) -> bool:
    """True for a file that `fetch` put in its place."""
    path = Path(os.path.abspath(path))
    return path.parent.parent.name == STAGE and store.file_key(path) is not None


def verify(path: str | Path) -> None:
    """Raise Damaged unless the digest of a fetched file is the one in its name."""
    if store.file_key(path) not in [keys.short(d) for d in _digests(path)]:
        raise Damaged(f"{path}: its digest is another than the name says")


def _digests(path: str | Path) -> tuple[str, str]:
    """SHA-256 of a file, by which the hub knows large ones, and the id that git gives small ones."""
    sha, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % os.path.getsize(path))
    with open(path, "rb") as f:
        while piece := f.read(_CHUNK):
            sha.update(piece)
            git.update(piece)
    return sha.hexdigest(), git.hexdigest()
