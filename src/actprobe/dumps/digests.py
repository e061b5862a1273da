"""Digests of downloaded files, and the file names that carry them.

A raw file of a dump is called `{algorithm}.{first 12 hex digits}.{ext}`, so that it can be checked
from its name alone. Algorithms are those of Weights & Biases manifests (MD5, XXH128) and SHA-256.
`size` stands for a file whose listing has no digest: its name comes from where it lies, only its
length can be checked while it is fetched, and `{path}.sha256` keeps what was received.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import Damaged

_RAW = re.compile(r"(md5|sha256|xxh128|size)\.([0-9a-f]{12})\.(\w+)")
EXTENSIONS = {".pt", ".pth", ".safetensors", ".npy", ".npz", ".h5", ".hdf5", ".json"}


def new(alg: str) -> Any:
    """A fresh hash object; `size` hashes with SHA-256."""
    if alg == "xxh128":
        import xxhash

        return xxhash.xxh128()
    return hashlib.md5(usedforsecurity=False) if alg == "md5" else hashlib.sha256()


def file_digest(path: str | Path, alg: str, progress: Callable[[int], None] | None = None) -> str:
    """Digest of a file in hex; `progress` gets the bytes of each piece read."""
    return keys.file_digest(path, new(alg), progress)


def raw_path(cache_dir: str, dump: str, alg: str, digest: str, name: str) -> str:
    """Where the file `name` of a dump lies in the cache. No part of `name` but a known extension
    enters the path."""
    ext = PurePosixPath(name).suffix.lower()
    ext = ext[1:] if ext in EXTENSIONS else "bin"
    return f"{cache_dir}/dumps/{dump}/{alg}.{keys.short(digest)}.{ext}"


def is_raw(path: str | Path) -> bool:
    """True for a file named by `raw_path`."""
    path = Path(os.path.abspath(path))  # its folders count, also when verify is run inside them
    return path.parent.parent.name == "dumps" and _RAW.fullmatch(path.name) is not None


def sidecar(path: str | Path) -> Path:
    """The file that keeps the SHA-256 of a download whose listing has no digest."""
    return Path(f"{path}.sha256")


def keep_digest(path: str | Path, digest: str) -> None:
    """Write the sidecar of a file."""
    part = Path(f"{path}.sha256.part")
    part.write_text(f"{digest}  {Path(path).name}\n")
    os.replace(part, sidecar(path))


def kept_digest(path: str | Path) -> str | None:
    """The SHA-256 that a sidecar holds, None when there is none."""
    try:
        return sidecar(path).read_text().split()[0]
    except (OSError, ValueError, IndexError):
        return None


def verify_file(path: str | Path, digest: str | None = None) -> None:
    """Read a raw file whole and compare it with its name (and with `digest`, when given).

    Raises Damaged with the digest found and the one expected.
    """
    path = Path(path)
    match = _RAW.fullmatch(path.name)
    if match is None:
        raise Damaged(f"{path}: not the name of a downloaded file")
    alg, expected, _ = match.groups()
    if alg == "size":
        kept = kept_digest(path)
        if kept is None or not re.fullmatch(r"[0-9a-f]{64}", kept):
            raise Damaged(f"{path}: no digest is kept beside it")
        expected = kept
    elif digest is not None:
        expected = digest
    found = file_digest(path, alg)
    if not found.startswith(expected):
        size = os.path.getsize(path)
        raise Damaged(f"{path}: {alg} {found} ({size} bytes), expected {expected}")
