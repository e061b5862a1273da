"""One file on its way: its part on disk, its journal, and what its bytes must hash to."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actprobe.cache import store
from actprobe.cache.store.files import out_of_space
from actprobe.dumps import digests
from actprobe.dumps.connection import Changed, Refused
from actprobe.dumps.journal import Journal, open_private

_MIB = 1 << 20
_PIECE = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    source: the artifact or run that holds it; path: its name there; into: its place in the cache;
    alg, digest: what its bytes must hash to (hex; with alg `size` only `size` and that nothing
    changed on the way can be checked, and an unfinished part is begun anew).
    """

    source: str
    path: str
    size: int
    alg: str
    digest: str
    into: Path


class Stale(Exception):
    """The file was begun anew, or in one stream, while these bytes of it were on their way."""


class Stopped(Exception):
    """The fetch is over."""


def segment_size(size: int) -> int:
    """Bytes fetched by one request: 1 to 16 MiB, so that a file is about 64 of them."""
    return min(16, max(1, -(-size // (64 * _MIB)))) * _MIB


def verified_path(path: str | Path) -> Path:
    """Where a whole file, whose digest was right, waits until its job publishes it.

    A job publishes all of its files or none; the next run hashes what lies under this name again
    and takes it over.
    """
    return Path(f"{path}.verified")


class Download:
    """The part of one remote file.

    The part has its full length from the start. Segments arrive in any order and are written by
    different threads; when all are there, one thread calls `finish`. `generation` counts how often
    the file was laid out anew: what was asked for before that is `Stale`.
    """

    def __init__(self, remote: Remote, segment: int | None = None):
        self.remote = remote
        self.part = store.part_path(remote.into)
        self.generation = 0
        self.one_stream = False
        self._segment = segment or segment_size(remote.size)
        self._lock = threading.Lock()
        self._version: str | None = None  # what the server calls the content
        self._begun_anew = False
        self._discard = False

    def open(self) -> int:
        """Open the part, allocated in full, and its journal; returns the bytes already there.

        Raises NoSpace, or OSError.
        """
        r = self.remote
        with contextlib.ExitStack() as undo:
            waiting = self._take_back()
            self._fd = open_private(self.part)
            undo.callback(os.close, self._fd)
            self._journal = self._new_journal()
            undo.callback(self._journal.close)
            # Without a digest nothing tells whether older bytes belong to the same content.
            if os.fstat(self._fd).st_size != r.size or (r.alg == "size" and not waiting):
                self._journal.clear()
                os.ftruncate(self._fd, r.size)
                digests.sidecar(r.into).unlink(missing_ok=True)
            if r.size:
                with out_of_space(r.into, r.size):
                    os.posix_fallocate(self._fd, 0, r.size)
            undo.pop_all()
        return self.received

    def _take_back(self) -> bool:
        """Make a part, all of it received, of a file that a killed run left under `verified_path`;
        for one without a listed digest the sidecar says what its bytes must hash to."""
        whole = verified_path(self.remote.into)
        try:
            if whole.stat().st_size != self.remote.size:
                return False
        except FileNotFoundError:
            return False
        journal = self._new_journal()
        for i in range(self._segments):
            begin, end = self._bounds(i)
            journal.record(i, end - begin)
        journal.close()
        os.replace(whole, self.part)
        return self.remote.alg != "size" or digests.sidecar(self.remote.into).exists()

    def _new_journal(self) -> Journal:
        r = self.remote
        identity = json.dumps([1, r.alg, r.digest, r.size, self._segment])
        return Journal(Path(f"{self.part}.journal"), identity, self._segments)

    @property
    def _segments(self) -> int:
        return -(-self.remote.size // self._segment)

    def _bounds(self, i: int) -> tuple[int, int]:
        return i * self._segment, min((i + 1) * self._segment, self.remote.size)

    def _missing_of(self, i: int) -> tuple[int, int]:
        begin, end = self._bounds(i)
        return begin + self._journal.received[i], end

    @property
    def received(self) -> int:
        """Bytes that are there."""
        return sum(self._journal.received)

    @property
    def complete(self) -> bool:
        """True when all bytes are there."""
        return self.received == self.remote.size

    def missing(self) -> tuple[int, list[int]]:
        """The generation, and the segments that are not complete."""
        with self._lock:
            open_ones = [i for i in range(self._segments) if len(range(*self._missing_of(i)))]
            return self.generation, open_ones

    def range(self, i: int, generation: int) -> tuple[int, int]:
        """Bytes [start, stop) of segment i that are still missing. Raises Stale."""
        with self._lock:
            self._require(generation)
            return self._missing_of(i)

    def length(self, i: int) -> int:
        """Bytes of segment i."""
        begin, end = self._bounds(i)
        return end - begin

    def _require(self, generation: int) -> None:
        if generation != self.generation:
            raise Stale

    @property
    def version(self) -> str | None:
        """What the server called the content so far; of interest only where there is no digest."""
        return self._version if self.remote.alg == "size" else None

    def arrives(self, generation: int, version: str | None) -> None:
        """The server calls its content `version`. Raises Changed for another one than before, of a
        file without a digest, and Stale."""
        with self._lock:
            self._require(generation)
            if self.remote.alg == "size" and self._version not in (None, version):
                raise Changed("the file there was changed while it was fetched")
            self._version = version

    def write(self, i: int, generation: int, data: bytes | bytearray) -> None:
        """Append bytes to segment i. Raises Stale, NoSpace, or OSError."""
        view = memoryview(data)
        with self._lock, out_of_space(self.remote.into, len(data)):
            self._require(generation)
            start, _ = self._missing_of(i)
            while view:
                view = view[os.pwrite(self._fd, view, start + len(data) - len(view)) :]
            self._journal.record(i, start + len(data) - self._bounds(i)[0])

    def begin_anew(self, generation: int, reason: str) -> bool:
        """Forget all bytes, once; False when another thread did so.

        Raises Refused with the reason the second time.
        """
        with self._lock:
            if generation != self.generation:
                return False
            if self._begun_anew:
                self._discard = True
                raise Refused(f"downloaded twice, {reason}")
            self._begun_anew, self._version = True, None
            self._journal.clear()
            self.generation += 1
            return True

    def in_one_stream(self, generation: int) -> bool:
        """From now on one segment, keeping the bytes from the beginning; False when it is so."""
        with self._lock:
            if generation != self.generation or self.one_stream:
                return False
            first = self._journal.received[0] if self._segments else 0
            self._journal.close()
            self.one_stream, self._segment = True, max(1, self.remote.size)
            self._journal = self._new_journal()
            if self._segments:
                self._journal.clear()
                self._journal.record(0, first)
            self.generation += 1
            return True

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Check the digest of the complete part and set it ready to be published.

        stopped: asked between pieces. False: the digest is wrong for the first time; the part is
        empty again and must be fetched anew. Raises Refused with both digests when it is wrong for
        the second time, and Stopped.
        """
        r, h, at = self.remote, digests.new(self.remote.alg), 0
        while at < r.size:
            if stopped():
                raise Stopped
            piece = os.pread(self._fd, min(_PIECE, r.size - at), at)
            if not piece:
                break  # cut short by somebody else: the digest is another one
            h.update(piece)
            at += len(piece)
        found, expected = h.hexdigest(), r.digest
        if r.alg == "size":
            expected = digests.kept_digest(r.into) or found
        if found != expected or at < r.size:
            digests.sidecar(r.into).unlink(missing_ok=True)
            self.begin_anew(self.generation, f"{r.alg} is {found}, expected {expected}")
            return False
        if r.alg == "size":
            digests.keep_digest(r.into, found)
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
            self.part.unlink(missing_ok=True)
        else:
            self._journal.close()


def discard(r: Remote) -> None:
    """Remove a file that waits to be published."""
    verified_path(r.into).unlink(missing_ok=True)
    digests.sidecar(r.into).unlink(missing_ok=True)
