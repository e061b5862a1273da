"""Where the hub's client keeps files on this machine, and whether they are whole.

Layout (huggingface_hub, "Understand caching"): `models--ORG--NAME/snapshots/COMMIT/FILE` points to
`blobs/DIGEST`; `refs/REVISION` holds the commit that a branch was when somebody last fetched it;
`trees/COMMIT.json` lists the files of a commit. Datasets lie in `datasets--ORG--NAME`. A blob's name
is the SHA-256 of its bytes, for small files the id that git gives them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from actprobe.base.errors import ActprobeError, Damaged
from actprobe.base.keys import DigestMemo
from actprobe.files.hub.names import DATASETS

_TREE_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A file of a commit: bytes, and its digest: SHA-256 (64 digits) or git's id (40 digits)."""

    size: int
    digest: str


Listing = Mapping[str, Entry]


def root() -> Path:
    """The folder of the local hub cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def storage(repo: str) -> Path:
    """The folder of a repository in the local hub cache."""
    called = repo if repo.startswith(DATASETS) else f"models/{repo}"
    return root() / called.replace("/", "--")


def snapshot(repo: str, commit: str) -> Path:
    """The folder of a commit in the local hub cache, there or not."""
    return storage(repo) / "snapshots" / commit


def anywhere(repo: str, name: str, commit: str = "*") -> Path | None:
    """A file of a repository at any commit that is here, for estimates."""
    found = sorted((storage(repo) / "snapshots").glob(f"{commit}/{glob.escape(name)}"))
    return found[0] if found else None


def reference(repo: str, revision: str) -> str | None:
    """The commit that a branch or tag was when the hub's client last fetched from it."""
    with contextlib.suppress(OSError, ValueError):
        commit = (storage(repo) / "refs" / revision).read_text().strip()
        return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None
    return None


def abbreviated(repo: str, revision: str) -> str | None:
    """The only commit here whose hash begins with these digits."""
    if not re.fullmatch(r"[0-9a-f]{7,39}", revision):
        return None
    found = [p.name for p in (storage(repo) / "snapshots").glob(f"{revision}*")]
    return found[0] if len(found) == 1 else None


def listing(repo: str, commit: str) -> Listing | None:
    """The files of a commit as they were once listed on this machine."""
    path = storage(repo) / "trees" / f"{commit}.json"
    try:
        return _read_tree(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@lru_cache(maxsize=64)
def _read_tree(path: str, changed: int) -> Listing:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if content["format_version"] != _TREE_VERSION:
        raise ValueError(f"{path}: another format")
    return {
        name: Entry(int(e.get("lfs_size") or e["size"]), e.get("lfs_sha256") or e["blob_id"])
        for name, e in content["files"].items()
        if is_safe(name)
    }


def is_safe(name: str) -> bool:
    """Whether a file's name stays below the folder that it is put in."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name


def keep_listing(repo: str, commit: str, files: Listing) -> None:
    """Write the list of a commit's files as the hub's client does; a cache that cannot be written
    costs only another question."""
    path = storage(repo) / "trees" / f"{commit}.json"
    described = {
        name: {"size": e.size, "blob_id": e.digest}
        | ({"lfs_sha256": e.digest, "lfs_size": e.size} if len(e.digest) == 64 else {})
        for name, e in sorted(files.items())
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{commit}.{os.getpid()}.tmp")
        part.write_text(json.dumps({"format_version": _TREE_VERSION, "files": described}))
        os.replace(part, path)


def lacking(repo: str, commit: str, names: Iterable[str]) -> list[str]:
    """Those of these files of a commit that are not here."""
    return [n for n in names if length(snapshot(repo, commit) / n) is None]


def length(path: Path) -> int | None:
    """Bytes of a file, None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def expected(path: str | Path, entry: Entry | None) -> str | None:
    """What a file's bytes must hash to: as listed, else by the name of the blob it points to."""
    if entry is not None:
        return entry.digest
    if not os.path.islink(path):
        return None
    blob = Path(os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))))
    named = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name)
    return blob.name if named else None


def require_whole(
    path: str | Path,
    memo: DigestMemo,
    entry: Entry | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Raise Damaged, saying what to delete, when a file of the hub cache is not what its name says.

    path: the file in its snapshot; entry: as listed, if it was; progress: gets the bytes of each
    piece that is read. SHA-256 is taken once and remembered
    by size and times of change; git's ids belong to small files. A file of which neither the list
    nor a blob's name says the digest is taken as it is.
    """
    digest = expected(path, entry)
    if entry is not None:
        require_length(path, entry)
    if digest is None:
        return
    try:
        found = (
            memo.sha256(path, progress) if len(digest) == 64 else git_id(Path(path).read_bytes())
        )
    except OSError as e:
        raise ActprobeError(f"{path}: cannot be read: {e.strerror}") from None
    if found != digest:
        raise _damaged(path, f"its digest is {found}, expected {digest}")


def require_length(path: str | Path, entry: Entry) -> None:
    """Raise Damaged when a file that is here has not the length that is listed."""
    size = length(Path(path))
    if size is not None and size != entry.size:
        raise _damaged(path, f"{size:,} bytes, expected {entry.size:,}")


def _damaged(path: str | Path, what: str) -> Damaged:
    real = os.path.realpath(path)
    both = dict.fromkeys([real, str(path)])
    return Damaged(
        f"{real} in the local hub cache is damaged: {what}; delete it (rm {' '.join(both)}), and the "
        "next run fetches it anew"
    )


def git_id(content: bytes) -> str:
    """The id that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
