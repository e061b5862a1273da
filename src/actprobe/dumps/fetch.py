"""The fetch job: the missing files of one dump, over all connections at once."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from actprobe.base.errors import ActprobeError
from actprobe.cache.plan import Batch
from actprobe.config import Config
from actprobe.config.dumps import Dump
from actprobe.dumps.download import Remote, verified_path
from actprobe.dumps.fetcher import fetch
from actprobe.dumps.pace import Settings
from actprobe.dumps.service import Service
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

log = logging.getLogger(__name__)


def run(batch: Batch, config: Config, threads: int) -> None:
    """Fetch, verify and publish the files of a batch; `threads` plays no part, connections do.

    When a file cannot be had, the others are still fetched and kept: the next run publishes them
    without asking for them again. Raises ActprobeError naming each file that failed.
    """
    dump = batch.loader
    with _one_at_a_time(Path(config.cache_dir) / "dumps"):
        remotes = [
            Remote(t.args.source, t.args.file, t.args.size, t.args.alg, t.key, Path(t.path))
            for t in batch.targets
            if not os.path.exists(t.path)
        ]
        uploads = {(r.source, r.path): r.digest for r in remotes if r.alg == "size"}
        ask = partial(Service().urls, uploads=uploads)
        urls = Urls(ask, [(r.source, r.path) for r in remotes])
        urls.ask_ahead()
        progress = Progress(f"dump {dump}", {r.path: r.size for r in remotes})
        failed = fetch(remotes, urls, settings(config.dumps[dump]), progress)
        if failed:
            reasons = "\n  ".join(f"{r.path}: {why}" for r, why in failed.items())
            raise ActprobeError(
                f"{batch.rule}: {len(failed)} of {len(batch.targets)} files of the dump cannot be "
                f"fetched:\n  {reasons}\n(the others are kept and not fetched again)"
            )
        for r in remotes:
            _publish(r.into)
        log.info("dump %s: %s", dump, _told(batch))


def _told(batch: Batch) -> str:
    """How many files are there; only those are verified that have a digest to compare with."""
    unsure = sum(t.args.alg == "size" for t in batch.targets)
    said = [f"{len(batch.targets) - unsure} files verified"] if unsure < len(batch.targets) else []
    if unsure:
        said.append(f"{unsure} fetched whole, without a digest of the service to compare with")
    return ", ".join(said)


def _publish(path: Path) -> None:
    try:
        os.replace(verified_path(path), path)
    except FileNotFoundError:  # unless another run has just put it in place
        if not path.exists():
            raise


def settings(entry: Dump) -> Settings:
    """Fetch settings of a dump's config entry."""
    return Settings(
        connections=entry.connections,
        rate_limit=None if entry.rate_limit is None else float(entry.rate_limit),
        stall=entry.stall_limit,
        least=float(entry.least_speed),
        tries=entry.tries,
    )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Only one process fetches into a cache; another one waits, and then finds the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that fetches into %s", folder)
            fcntl.flock(f, fcntl.LOCK_EX)
        except OSError as e:  # a file system without locks: two runs would fetch twice
            if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
