"""Many files over N connections: ranges, retries, fresh URLs, digests; one bad file stops no other.

Workers take segments of the largest file first, each over its own keep-alive connection. A file
whose bytes are all there is hashed by a small pool, from the page cache. Every wait is bounded, and
every error names the file and never a URL.
"""

from __future__ import annotations

import heapq
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.dumps.connection import (
    Changed,
    Expired,
    NoRanges,
    Refused,
    Session,
    new_session,
    open_range,
)
from actprobe.dumps.download import Download, Remote, Stale, Stopped, discard, verified_path
from actprobe.dumps.dropped import Dropped
from actprobe.dumps.pace import Limiter, Settings
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

log = logging.getLogger(__name__)

_OPEN = 4  # files open at once per connection: each has two descriptors until it is hashed
_FLUSH = 1 << 19  # bytes a connection may hold in memory, and lose when the process is killed
_MARGIN = 64 << 20  # bytes of disk that stay free
_HASHERS = 4  # at most; one core each
_LONG = 1 << 30  # bytes whose hashing takes long enough to be told
_STEPS = 64  # an attempt that brings less than this part of a segment is no progress
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fetch(
    remotes: Sequence[Remote], urls: Urls, settings: Settings, progress: Progress
) -> dict[Remote, str]:
    """Fetch the files into `verified_path(remote.into)`; those already there are hashed again.

    Files without a listed digest are there only when the service still lists them, at the end, as
    they were locked. Returns the files that failed with the reason. Raises NoSpace, before the first
    byte, when the disk cannot hold what is missing.
    """
    if not remotes:
        return {}
    remotes[0].into.parent.mkdir(parents=True, exist_ok=True)
    if needed := sum(r.size - _allocated(r) for r in remotes):
        store.require_space(remotes[0].into, needed + _MARGIN)
    failed = _Fetch(remotes, urls, settings, progress).run()
    unsure = {(r.source, r.path): r for r in remotes if r.alg == "size" and r not in failed}
    for place in urls.gone(unsure):
        discard(unsure[place])
        failed[unsure[place]] = (
            "it was uploaded again since it was locked, and has no digest; run `actprobe lock`"
        )
    return failed


def _allocated(r: Remote) -> int:
    """Bytes of disk that a file has already."""
    for path in (store.part_path(r.into), verified_path(r.into)):
        try:
            return min(r.size, path.stat().st_blocks * 512)
        except FileNotFoundError:
            continue
    return 0


class _Fetch:
    """The state that the threads share; `_changed` guards it."""

    def __init__(
        self, remotes: Sequence[Remote], urls: Urls, settings: Settings, progress: Progress
    ):
        self._downloads = [Download(r, settings.segment) for r in remotes]
        self._urls, self._settings, self._progress = urls, settings, progress
        self._limiter = Limiter(settings.rate_limit)
        self._changed = threading.Condition()
        # (-size, file, segment, generation): the largest file first; segment -1 opens the file.
        self._unopened = sorted((-r.size, n, -1, 0) for n, r in enumerate(remotes))
        self._todo: list[tuple[int, int, int, int]] = []
        self._complete: deque[int] = deque()
        self._begun: set[int] = set()  # taken from _unopened and not settled
        self._unsettled = set(range(len(remotes)))
        self._opened: set[int] = set()
        self._hashing: set[int] = set()  # complete, and not begun anew since
        self._users = [0] * len(remotes)
        self._failed: dict[int, str] = {}
        self._one_stream = False
        self._crash: BaseException | None = None

    def run(self) -> dict[Remote, str]:
        hashers = min(_HASHERS, _CORES, len(self._downloads))
        loops = [*[self._hash] * hashers, *[self._work] * self._settings.connections]
        threads = [threading.Thread(target=self._guarded, args=(f,), daemon=True) for f in loops]
        for t in threads:
            t.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._unsettled or self._crash)
        finally:  # an interrupt leaves the threads, which are daemons, to end by themselves
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
        except (Stale, Stopped):
            pass
        finally:
            with self._changed:
                self._users[n] -= 1
                if n in self._failed and n in self._opened and not self._users[n]:
                    self._opened.discard(n)
                    self._downloads[n].close()
                self._changed.notify_all()

    def _next(self) -> tuple[int, int, int] | None:
        """The next file, segment and generation, or None when there is nothing left to wait for."""
        with self._changed:
            while self._unsettled:
                self._begun &= self._unsettled
                room = len(self._begun) < _OPEN * self._settings.connections
                heaps = [h for h in (self._unopened if room else [], self._todo) if h]
                if not heaps:
                    self._changed.wait()
                    continue
                _, n, i, generation = heapq.heappop(min(heaps, key=lambda h: h[0]))
                if n in self._unsettled:
                    self._begun.add(n)
                    self._users[n] += 1
                    return n, i, generation
        return None

    def _work(self) -> None:
        settings = self._settings
        with new_session(settings.connect, settings.stall, settings.least) as session:
            while (task := self._next()) is not None:
                n, i, generation = task
                with self._using(n) as download:
                    if i < 0:
                        self._open(n, download)
                    else:
                        self._segment(session, n, i, generation)
                        self._line_up(n, segments=False)

    def _open(self, n: int, download: Download) -> None:
        self._progress.start(download.remote.path, download.open())
        with self._changed:
            self._opened.add(n)
        if self._one_stream:
            download.in_one_stream(download.generation)
        self._line_up(n)

    def _line_up(self, n: int, segments: bool = True) -> None:
        """Line up the missing segments of a file, or the file to be hashed when none is missing."""
        download = self._downloads[n]
        with self._changed:
            generation, missing = download.missing()
            if missing:
                self._hashing.discard(n)
            elif n not in self._hashing:
                self._hashing.add(n)
                self._complete.append(n)
            for i in missing if segments else ():
                heapq.heappush(self._todo, (-download.remote.size, n, i, generation))
            self._changed.notify_all()

    def _segment(self, session: Session, n: int, i: int, generation: int) -> None:
        """Fetch what is missing of a segment. Raises Refused when it cannot be had."""
        download, settings = self._downloads[n], self._settings
        r, tries, expired, moved = download.remote, 0, None, time.monotonic()
        while n in self._unsettled:
            start, stop = download.range(i, generation)
            if start == stop:
                return
            wait = None
            try:
                url = self._urls.get(r.source, r.path, expired)
                self._receive(session, url, n, i, generation)
                return
            except Expired as e:
                reason, expired = str(e), url
            except Dropped as e:
                reason, wait = str(e), e.wait
            except (Changed, NoRanges) as e:
                self._lay_out_anew(n, generation, e)
                return
            except KeyError:
                raise Refused("the service does not list this file as it was locked") from None
            now, at = time.monotonic(), download.range(i, generation)[0]
            if at - start >= self._progress_of(download.length(i)):
                tries, moved = 0, now
            tries += 1
            if tries >= settings.tries or now - moved > settings.patience:
                raise Refused(f"{reason}; gave up after {tries} tries without progress")
            log.info(
                "%s: %s at byte %d, trying again (%d of %d)",
                r.path, reason, at, tries + 1, settings.tries,
            )  # fmt: skip
            if wait is None:
                longest = min(settings.longest_backoff, settings.backoff * 2 ** (tries - 1))
                wait = longest * random.uniform(0.5, 1)
            with self._changed:  # another segment may fail the file meanwhile
                self._changed.wait_for(lambda: n not in self._unsettled, wait)

    def _progress_of(self, length: int) -> float:
        """Bytes that an attempt at a segment must bring, so that it counts as progress."""
        slowest = self._settings.least * self._settings.stall
        return min(length, max(length / _STEPS, slowest))

    def _lay_out_anew(self, n: int, generation: int, why: Exception) -> None:
        """Begin a file anew that was changed, or go on in one stream where ranges are ignored."""
        download = self._downloads[n]
        if isinstance(why, NoRanges):
            self._one_stream = True
            changed = download.in_one_stream(generation)
            said = "the server ignores ranges: fetching it in one stream"
        else:
            changed = download.begin_anew(generation, str(why))
            said = f"{why}: fetching it again"
        if changed:
            log.warning("%s: %s", download.remote.path, said)
            self._progress.start(download.remote.path, download.received)
            self._line_up(n)

    def _receive(self, session: Session, url: str, n: int, i: int, generation: int) -> None:
        """Write what arrives of a segment, also when the connection breaks."""
        download, held = self._downloads[n], bytearray()
        r, (start, stop) = download.remote, download.range(i, generation)
        with open_range(
            session, url, start, stop, r.size, download.version, download.one_stream
        ) as body:
            download.arrives(generation, body.version)
            try:
                for piece in body:
                    self._limiter.take(len(piece))
                    self._progress.add(r.path, len(piece))
                    held += piece
                    if len(held) >= _FLUSH:
                        download.write(i, generation, held)
                        held = bytearray()
                        if n not in self._unsettled:
                            return
            finally:
                if held:
                    download.write(i, generation, held)

    def _hash(self) -> None:
        while (n := self._next_complete()) is not None:
            with self._using(n) as download:
                r = download.remote
                if r.size >= _LONG:
                    log.info("%s: all of %.1f GB are there, hashing", r.path, r.size / 1e9)
                if download.finish(lambda n=n: n not in self._unsettled):  # type: ignore[misc]
                    with self._changed:
                        self._opened.discard(n)
                        self._unsettled.discard(n)
                else:
                    log.warning("%s: wrong digest, fetching it again", r.path)
                    self._progress.start(r.path, 0)
                    self._line_up(n)

    def _next_complete(self) -> int | None:
        """A file to hash, or None when there is nothing left to wait for."""
        with self._changed:
            while self._unsettled:
                if self._complete and (n := self._complete.popleft()) in self._unsettled:
                    self._users[n] += 1
                    return n
                if not self._complete:
                    self._changed.wait()
        return None
