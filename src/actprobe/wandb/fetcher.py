"""Many files over N connections: ranges, retries, fresh URLs, digests; one bad file stops no other.

Workers take segments of the largest file first, each over its own keep-alive connection; one
thread hashes behind them. Every wait is bounded, and every error names the file and never a URL.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from actprobe import store
from actprobe.errors import ActprobeError
from actprobe.wandb import connection
from actprobe.wandb.connection import Dropped, Expired, Refused
from actprobe.wandb.download import Download, Remote, verified_path
from actprobe.wandb.progress import Progress
from actprobe.wandb.urls import Urls

log = logging.getLogger(__name__)

_OPEN = 4  # files open at once per connection: each has two descriptors until it is hashed
_FLUSH = 1 << 19  # bytes a connection may hold in memory, and lose when the process is killed
_MARGIN = 64 << 20  # bytes of disk that stay free


@dataclass(frozen=True)
class Settings:
    """How to fetch. None of it changes what is fetched.

    connections: ranges in flight at once; rate_limit: bytes per second over all of them; stall:
    seconds without a byte after which a connection is given up; connect: seconds to connect;
    tries: attempts at a segment without progress; backoff, longest_backoff: seconds, doubled with
    every such attempt; segment: bytes per request (None: by file size).
    """

    connections: int = 8
    rate_limit: float | None = None
    stall: float = 30.0
    connect: float = 10.0
    tries: int = 8
    backoff: float = 0.25
    longest_backoff: float = 30.0
    segment: int | None = None


class _Limiter:
    """Lets `rate` bytes a second pass, over all threads together."""

    def __init__(self, rate: float | None):
        self._rate, self._free_at, self._lock = rate, 0.0, threading.Lock()

    def take(self, n: int) -> None:
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + n / self._rate
            wait = self._free_at - time.monotonic()
        time.sleep(max(wait, 0.0))


def fetch(
    remotes: Sequence[Remote], urls: Urls, settings: Settings, progress: Progress
) -> dict[Remote, str]:
    """Fetch the files into `verified_path(remote.into)`; those already there are left alone.

    Returns the files that failed with the reason. Raises NoSpace, before the first byte, when the
    disk cannot hold what is missing.
    """
    missing = [r for r in remotes if not _verified(r)]
    if missing:
        missing[0].into.parent.mkdir(parents=True, exist_ok=True)
        if needed := sum(r.size - _allocated(r) for r in missing):
            store.require_space(missing[0].into, needed + _MARGIN)
    return _Fetch(missing, urls, settings, progress).run()


def _verified(r: Remote) -> bool:
    try:
        return verified_path(r.into).stat().st_size == r.size
    except FileNotFoundError:
        return False


def _allocated(r: Remote) -> int:
    try:
        return min(r.size, store.part_path(r.into).stat().st_blocks * 512)
    except FileNotFoundError:
        return 0


class _Fetch:
    """The state that the threads share; `_changed` guards it."""

    def __init__(
        self, remotes: Sequence[Remote], urls: Urls, settings: Settings, progress: Progress
    ):
        self._downloads = [Download(r, settings.segment) for r in remotes]
        self._urls, self._settings, self._progress = urls, settings, progress
        self._limiter = _Limiter(settings.rate_limit)
        self._changed = threading.Condition()
        # (-size, file, segment): the largest file first; segment -1 opens the file.
        self._unopened = sorted((-r.size, n, -1) for n, r in enumerate(remotes))
        self._todo: list[tuple[int, int, int]] = []
        self._begun: set[int] = set()  # taken from _unopened and not settled
        self._unsettled = set(range(len(remotes)))
        self._opened: set[int] = set()
        self._users = [0] * len(remotes)
        self._failed: dict[int, str] = {}
        self._crash: BaseException | None = None

    def run(self) -> dict[Remote, str]:
        loops = [self._hash, *[self._work] * self._settings.connections]
        threads = [threading.Thread(target=self._guarded, args=(f,), daemon=True) for f in loops]
        for t in threads:
            t.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._unsettled or self._crash)
        finally:
            with self._changed:
                self._unsettled.clear()
                self._changed.notify_all()
        for t in threads:
            t.join()
        if self._crash is not None:
            raise self._crash
        return {self._downloads[n].remote: why for n, why in sorted(self._failed.items())}

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as e:  # a fault of ours ends the fetch instead of hanging it
            with self._changed:
                self._crash = e
                self._changed.notify_all()

    @contextmanager
    def _using(self, n: int) -> Iterator[Download]:
        """File n in use by this thread. A failure inside is recorded as the file's; the last user
        of a failed file closes it."""
        try:
            yield self._downloads[n]
        except (Refused, ActprobeError, OSError) as e:
            with self._changed:
                self._failed.setdefault(n, str(e))
                self._unsettled.discard(n)
        finally:
            with self._changed:
                self._users[n] -= 1
                if n in self._failed and n in self._opened and not self._users[n]:
                    self._opened.discard(n)
                    self._downloads[n].close()
                self._changed.notify_all()

    def _next(self) -> tuple[int, int] | None:
        """The next file and segment, or None when there is nothing left to wait for."""
        with self._changed:
            while self._unsettled:
                self._begun &= self._unsettled
                room = len(self._begun) < _OPEN * self._settings.connections
                heaps = [h for h in (self._unopened if room else [], self._todo) if h]
                if not heaps:
                    self._changed.wait()
                    continue
                _, n, i = heapq.heappop(min(heaps, key=lambda h: h[0]))
                if n in self._unsettled:
                    self._begun.add(n)
                    self._users[n] += 1
                    return n, i
        return None

    def _work(self) -> None:
        with connection.new_session() as session:
            while (task := self._next()) is not None:
                n, i = task
                with self._using(n) as download:
                    if i < 0:
                        self._open(n, download)
                    else:
                        self._segment(session, n, i)

    def _open(self, n: int, download: Download) -> None:
        self._progress.start(download.remote.path, download.open())
        self._push(n)

    def _push(self, n: int) -> None:
        """Line up the missing segments of a file."""
        with self._changed:
            self._opened.add(n)
            for i in self._downloads[n].missing:
                heapq.heappush(self._todo, (-self._downloads[n].remote.size, n, i))
            self._changed.notify_all()

    def _segment(self, session: requests.Session, n: int, i: int) -> None:
        """Fetch what is missing of a segment. Raises Refused when it cannot be had."""
        download, settings = self._downloads[n], self._settings
        r, tries, expired = download.remote, 0, None
        while n in self._unsettled:
            start, stop = download.range(i)
            if start == stop:
                return
            wait = None
            try:
                url = self._urls.get(r.source, r.path, expired)
                pieces = connection.stream(
                    session, url, start, stop, r.size, settings.connect, settings.stall
                )
                self._receive(pieces, n, i)
                return  # a file begun anew lines this segment up again, perhaps for another thread
            except Expired as e:
                reason, expired = str(e), url
            except Dropped as e:
                reason, wait = str(e), e.wait
            except KeyError:
                raise Refused("the service does not list this file as it was locked") from None
            tries = 1 if download.range(i)[0] > start else tries + 1
            if tries >= settings.tries:
                raise Refused(f"{reason}; gave up after {tries} tries without progress")
            log.info("%s: %s at byte %d, trying again", r.path, reason, download.range(i)[0])
            if wait is None:
                longest = min(settings.longest_backoff, settings.backoff * 2 ** (tries - 1))
                wait = longest * random.uniform(0.5, 1)
            with self._changed:  # another segment may fail the file meanwhile
                self._changed.wait_for(lambda: n not in self._unsettled, wait)

    def _receive(self, pieces: Iterable[bytes], n: int, i: int) -> None:
        """Write what arrives of a segment, also when the connection breaks."""
        download, held = self._downloads[n], bytearray()
        try:
            for piece in pieces:
                self._limiter.take(len(piece))
                self._progress.add(download.remote.path, len(piece))
                held += piece
                if len(held) >= _FLUSH:
                    download.write(i, held)
                    held = bytearray()
                    if n not in self._unsettled:
                        return
        finally:
            if held:
                download.write(i, held)

    def _behind(self) -> int | None:
        """An open file with bytes to hash, or None when there is nothing left to wait for."""
        with self._changed:
            while self._unsettled:
                for n in self._opened & self._unsettled:
                    if self._downloads[n].behind:
                        self._users[n] += 1
                        return n
                self._changed.wait()
        return None

    def _hash(self) -> None:
        while (n := self._behind()) is not None:
            with self._using(n) as download:
                if not download.hash_more():
                    continue
                if download.finish():
                    with self._changed:
                        self._opened.discard(n)
                        self._unsettled.discard(n)
                else:
                    log.warning("%s: wrong digest, fetching it again", download.remote.path)
                    self._progress.start(download.remote.path, 0)
                    self._push(n)
