"""Files of a commit into the local hub cache: resumed, checked, with progress in the log.

The hub's client begins a file anew after a kill and writes signed addresses into warnings. Here a
file grows in `blobs/DIGEST.actprobe.incomplete`, and is put under its name once its digest is right.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

from actprobe.base.errors import ActprobeError, Unreachable
from actprobe.cache.store.files import out_of_space
from actprobe.files.hub import transfer
from actprobe.files.hub.asking import LONGEST_WAIT, Dropped, cause, keep_out_of_logs, offline
from actprobe.files.hub.layout import Entry, length
from actprobe.files.hub.names import of_client
from actprobe.files.hub.placing import blob_of, point, unfinished, writable
from actprobe.files.hub.progress import Progress
from actprobe.files.hub.transfer import check, new_hash, opened

log = logging.getLogger(__name__)

TRIES = 5  # without progress worth the name between them
PAUSE = 1.0  # seconds before the first further try; the others wait twice as long each
LEAST = 1000.0  # bytes a second, over `WINDOW` seconds
WINDOW = 30.0
QUIET = 1 << 20  # bytes that are not worth a line
EVERY = 10.0  # seconds between lines of progress
_AT_ONCE = 4


def fetch(repo: str, commit: str, files: Mapping[str, Entry], title: str) -> set[str]:
    """Download files of a commit, several at once; returns those whose digest was checked by it.

    Raises Unreachable when bytes stop coming, ConfigError when they are refused for good. What has
    arrived stays, and the next run goes on from there.
    """
    if not files:
        return set()
    if reason := offline():
        raise Unreachable(f"hub:{repo} at {commit[:8]}: {reason}, and {_some(files)} not here")
    keep_out_of_logs()
    total = sum(e.size for e in files.values())
    tell = logging.INFO if total > QUIET else logging.DEBUG
    log.log(tell, "%s: fetching %d files, %s MB", title, len(files), f"{total / 1e6:,.1f}")
    progress = Progress(title, {n: e.size for n, e in files.items()}, EVERY)
    begun, stop = time.monotonic(), threading.Event()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ways = {n: _File(repo, commit, n, e, progress, stop) for n, e in files.items()}
        jobs = {n: pool.submit(way.get) for n, way in ways.items()}
        try:
            wait(jobs.values(), return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    errors = [e for job in jobs.values() if not job.cancelled() and (e := job.exception())]
    if errors:
        raise next((e for e in errors if not isinstance(e, _GivenUp)), errors[0])
    checked = {n for n, job in jobs.items() if job.result()}
    took = max(time.monotonic() - begun, 1e-3)
    log.log(tell, "%s: fetched at %.1f MB/s", title, total / took / 1e6)
    return checked


def _some(files: Mapping[str, Entry]) -> str:
    first = next(iter(files))
    return f"{first} and {len(files) - 1} other files are" if len(files) > 1 else f"{first} is"


class _GivenUp(Unreachable):
    """Another file cannot be had."""


class _File:
    """One file on its way."""

    def __init__(
        self,
        repo: str,
        commit: str,
        name: str,
        entry: Entry,
        progress: Progress,
        stop: threading.Event,
    ):
        self.repo, self.commit, self.name, self.entry = repo, commit, name, entry
        self.progress, self.stop = progress, stop
        self.what = f"hub:{repo}/{name} at {commit[:8]}"

    def get(self) -> bool:
        """Have the file, or raise; whether its digest was taken on the way."""
        blob = blob_of(self.repo, self.entry)
        fetched = length(blob) is None
        if fetched and self.entry.size > _largest():
            self._by_client()
            return False
        if fetched:
            with writable(blob), unfinished(blob) as f:
                fetched = length(blob) is None
                if fetched:
                    self._fill(f)
                    os.fsync(f.fileno())
                    os.replace(f.name, blob)
                else:  # another process was faster
                    os.unlink(f.name)
        self.progress.start(self.name, self.entry.size)
        point(self.repo, self.commit, self.name, self.entry)
        return fetched

    def _by_client(self) -> None:
        """Files so large are given out by the hub's other protocol only, which its client knows."""
        from huggingface_hub import hf_hub_download

        log.info("%s: left to the hub's client, because of its size", self.what)
        repo, kind = of_client(self.repo)
        hf_hub_download(repo, self.name, revision=self.commit, repo_type=kind)

    def _fill(self, f: BinaryIO) -> None:
        """Bring the part to its full length and the right digest; twice at most."""
        for last in (False, True):
            digest, at = self._begun(f)
            self.progress.start(self.name, at)
            digest = self._receive(f, digest, at)
            if (found := digest.hexdigest()) == self.entry.digest:
                return
            f.truncate(0)
            if last:
                os.unlink(f.name)
                raise Unreachable(
                    f"{self.what}: fetched twice, its digest is {found}, expected "
                    f"{self.entry.digest}"
                )
            log.warning("%s: wrong bytes arrived; fetched again", self.what)

    def _begun(self, f: BinaryIO) -> tuple[Any, int]:
        """The hash of what an earlier run left of the file, and how many bytes that is."""
        digest = new_hash(self.entry)
        if os.fstat(f.fileno()).st_size > self.entry.size:
            f.truncate(0)
        f.seek(0)
        while piece := f.read(1 << 22):
            digest.update(piece)
        if at := f.tell():
            done, size = at / 1e6, self.entry.size / 1e6
            log.info("%s: goes on at %.1f of %.1f MB", self.what, done, size)
        return digest, at

    def _receive(self, f: BinaryIO, digest: Any, at: int) -> Any:
        """Append what is missing, over as many connections as it takes; the hash of all."""
        failures = 0
        while at < self.entry.size:
            before = at
            try:
                for start, piece in self._pieces(at):
                    if self.stop.is_set():
                        raise _GivenUp(f"{self.what}: given up with the others")
                    if start == 0 and at:  # the server sends the whole file
                        f.truncate(0)
                        f.seek(0)
                        digest, at = new_hash(self.entry), 0
                        self.progress.start(self.name, 0)
                    with out_of_space(f.name, len(piece)):
                        f.write(piece)
                        f.flush()
                    digest.update(piece)
                    at += len(piece)
                    self.progress.add(self.name, len(piece))
            except Dropped as e:
                failures = 1 if at - before > LEAST * WINDOW else failures + 1
                if failures > TRIES or e.wait > LONGEST_WAIT:
                    raise Unreachable(
                        f"{self.what}: {e}; {at / 1e6:,.1f} of {self.entry.size / 1e6:,.1f} MB are "
                        "here, and the next run goes on there"
                    ) from None
                pause = max(e.wait, PAUSE * 2 ** (failures - 1))
                log.info("%s: %s; again in %.0f s", self.what, e, pause)
                self.stop.wait(pause)
        return digest

    def _pieces(self, at: int) -> Iterator[tuple[int, bytes]]:
        """(where it belongs, bytes) as they arrive, beginning at `at` or at 0. Raises Dropped."""
        try:
            with opened(self.repo, self.commit, self.name, at) as response:
                start = check(response, at, self.entry.size)
                since, got = time.monotonic(), 0
                for piece in response.iter_raw():
                    if start + len(piece) > self.entry.size:
                        raise Dropped("more bytes than announced")
                    yield start, piece
                    start, got = start + len(piece), got + len(piece)
                    if (seconds := time.monotonic() - since) > WINDOW:
                        if got < LEAST * seconds:
                            raise Dropped(f"less than {LEAST / 1000:.0f} kB/s for {seconds:.0f} s")
                        since, got = time.monotonic(), 0
                if start < self.entry.size:
                    raise Dropped(f"the body ended {self.entry.size - start:,} bytes early")
        except (Dropped, ActprobeError):
            raise
        except Exception as e:
            found = cause(e, self.repo, limit=transfer.STALL)
            if found.final:
                raise found.final(f"{self.what}: {found.text}") from None
            raise Dropped(found.text, found.wait or 0.0) from None


def _largest() -> int:
    """Bytes of the largest file that is given out over HTTP."""
    from huggingface_hub import constants

    return constants.MAX_HTTP_DOWNLOAD_SIZE
