"""One file on its way: its part on disk, its journal, and its digest while it grows."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from actprobe import store
from actprobe.store.files import out_of_space
from actprobe.wandb import digests
from actprobe.wandb.connection import Refused
from actprobe.wandb.journal import Journal, open_private

_MIB = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    source: the artifact or run that holds it; path: its name there; into: its place in the cache;
    alg, digest: what its bytes must hash to (hex; with alg `size` only `size` can be checked, and
    an unfinished part is begun anew).
    """

    source: str
    path: str
    size: int
    alg: str
    digest: str
    into: Path


def segment_size(size: int) -> int:
    """Bytes fetched by one request: 1 to 16 MiB, so that a file is about 64 of them."""
    return min(16, max(1, -(-size // (64 * _MIB)))) * _MIB


def verified_path(path: str | Path) -> Path:
    """Where a whole, verified file waits until its job publishes it.

    A job publishes all of its files or none; the next run takes over what lies under this name.
    """
    return Path(f"{path}.verified")


class Download:
    """The part of one remote file.

    The part has its full length from the start. Segments arrive in any order; `hash_more` follows
    the bytes that are there without a gap, so that the digest is known when the last one arrives.
    Worker threads write different segments; one thread hashes and finishes.
    """

    def __init__(self, remote: Remote, segment: int | None = None):
        self.remote = remote
        self.segment = segment or segment_size(remote.size)
        self.segments = -(-remote.size // self.segment)
        self.part = store.part_path(remote.into)
        self._second_try = False
        self._discard = False

    def open(self) -> int:
        """Open the part, allocated in full, and its journal; returns the bytes already there.

        Raises NoSpace, or OSError.
        """
        r = self.remote
        with contextlib.ExitStack() as undo:
            self._fd = open_private(self.part)
            undo.callback(os.close, self._fd)
            identity = json.dumps([1, r.alg, r.digest, r.size, self.segment])
            self._journal = Journal(Path(f"{self.part}.journal"), identity, self.segments)
            undo.callback(self._journal.close)
            # Without a digest nothing tells whether older bytes belong to the same content.
            if os.fstat(self._fd).st_size != r.size or r.alg == "size":
                self._journal.clear()
                os.ftruncate(self._fd, r.size)
            if r.size:
                with out_of_space(r.into, r.size):
                    os.posix_fallocate(self._fd, 0, r.size)
            undo.pop_all()
        self._begin_hash()
        return sum(self._journal.received)

    def _begin_hash(self) -> None:
        self._hash, self._hashed = digests.new(self.remote.alg), 0
        self._first_open = 0  # the first segment that is not complete

    def range(self, i: int) -> tuple[int, int]:
        """Bytes [start, stop) of segment i that are still missing."""
        begin = i * self.segment
        return begin + self._journal.received[i], min(begin + self.segment, self.remote.size)

    @property
    def missing(self) -> list[int]:
        """Segments that are not complete."""
        return [i for i in range(self.segments) if self.range(i)[0] < self.range(i)[1]]

    def write(self, i: int, data: bytes | bytearray) -> None:
        """Append bytes to segment i. Raises NoSpace, or OSError."""
        start, _ = self.range(i)
        view = memoryview(data)
        with out_of_space(self.remote.into, len(data)):
            while view:
                view = view[os.pwrite(self._fd, view, start + len(data) - len(view)) :]
            self._journal.record(i, start + len(data) - i * self.segment)

    def _frontier(self) -> int:
        """Bytes from the beginning that are there without a gap."""
        while self._first_open < self.segments:
            start, stop = self.range(self._first_open)
            if start < stop:
                return start
            self._first_open += 1
        return self.remote.size

    @property
    def behind(self) -> bool:
        """True when there is something to hash, or the file is complete."""
        frontier = self._frontier()
        return self._hashed < frontier or frontier == self.remote.size

    def hash_more(self) -> bool:
        """Hash what has arrived; True when the file is complete."""
        frontier = self._frontier()
        while self._hashed < frontier:
            piece = os.pread(self._fd, min(_CHUNK, frontier - self._hashed), self._hashed)
            self._hash.update(piece)
            self._hashed += len(piece)
        return frontier == self.remote.size

    def finish(self) -> bool:
        """Check the digest of the complete part and set it ready to be published.

        False: the digest is wrong for the first time; the part is empty again and must be fetched
        anew. Raises Refused with both digests when it is wrong for the second time.
        """
        r, found = self.remote, self._hash.hexdigest()
        if r.alg != "size" and found != r.digest:
            if not self._second_try:
                self._second_try = True
                self._journal.clear()
                self._begin_hash()
                return False
            self._discard = True
            raise Refused(f"downloaded twice, {r.alg} is {found}, expected {r.digest}")
        if r.alg == "size":
            digests.sidecar(r.into).write_text(f"{found}  {r.into.name}\n")
        os.fsync(self._fd)
        os.replace(self.part, verified_path(r.into))
        os.close(self._fd)
        self._journal.remove()
        return True

    def close(self) -> None:
        """Close an unfinished part. Its content stays for the next run, unless it was wrong."""
        os.close(self._fd)
        if self._discard:
            self._journal.remove()
            with contextlib.suppress(FileNotFoundError):
                self.part.unlink()
        else:
            self._journal.close()
