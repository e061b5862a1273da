"""Where fetched bytes go: unfinished parts, blobs, and the places in a snapshot that point to them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache.store.files import out_of_space
from actprobe.files.hub import layout
from actprobe.files.hub.layout import Entry

log = logging.getLogger(__name__)


def put(repo: str, commit: str, name: str, entry: Entry, found: bytes) -> None:
    """Write a small file into the local hub cache."""
    blob = blob_of(repo, entry)
    if layout.length(blob) is None:
        part = blob.with_name(f"{blob.name}.{os.getpid()}.incomplete")
        with writable(blob), out_of_space(blob, entry.size):
            part.write_bytes(found)
            os.replace(part, blob)
    point(repo, commit, name, entry)


def blob_of(repo: str, entry: Entry) -> Path:
    """Where the bytes of a file lie."""
    return layout.storage(repo) / "blobs" / entry.digest


@contextlib.contextmanager
def writable(blob: Path) -> Iterator[None]:
    """Raise ConfigError where the local hub cache cannot be written."""
    try:
        blob.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        raise ConfigError(
            f"the local hub cache {layout.root()} cannot be written ({e.strerror}); set HF_HOME to a "
            "folder that can, or fetch the files into it where it can be written (hf download)"
        ) from None


@contextlib.contextmanager
def unfinished(blob: Path) -> Iterator[BinaryIO]:
    """The unfinished file, open at its beginning; one process at a time."""
    path = blob.with_name(f"{blob.name}.actprobe.incomplete")
    said = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        f = open(path, "r+b", opener=lambda *_, fd=fd: fd)  # noqa: SIM115
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.close()
            if not said:
                log.info("waiting: another process is fetching %s", blob.name[:12])
            said = True
            time.sleep(1.0)
            continue
        except OSError as e:
            if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        try:
            same = path.exists() and os.path.samestat(os.fstat(f.fileno()), path.stat())
        except FileNotFoundError:
            same = False
        if same:
            break
        f.close()  # its last holder renamed it just before we locked it
    with f:
        yield f


def point(repo: str, commit: str, name: str, entry: Entry) -> None:
    """Let the file's place in the snapshot of a commit point to its blob."""
    blob, pointer = blob_of(repo, entry), layout.snapshot(repo, commit) / name
    if layout.length(pointer) == entry.size:
        return
    with writable(blob):
        pointer.parent.mkdir(parents=True, exist_ok=True)
        new = pointer.with_name(f"{pointer.name}.{os.getpid()}.tmp")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        try:
            new.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a file system without symbolic links
            try:
                os.link(blob, new)
            except OSError as e:
                raise ActprobeError(f"cannot write {pointer}: {e.strerror}") from None
        os.replace(new, pointer)
