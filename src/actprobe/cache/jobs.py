"""What every job shares: its batch from the frozen plan, its log, and how its results land."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import plan as planning
from actprobe.cache import store
from actprobe.cache.plan import THERE, Batch, State, Target
from actprobe.config import Config

log = logging.getLogger("actprobe")

PLAN_VARIABLE = "ACTPROBE_PLAN"
_MB = 10**6
SNAKEMAKE = 300 * _MB  # two Snakemake processes in every submitted job


@contextlib.contextmanager
def logged(log_file: str | Path) -> Iterator[None]:
    """Send this process's output, its children's and tracebacks to the log file.

    An ActprobeError ends the process with its message alone, in the log and on the screen.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    screen = os.dup(2)
    with open(log_file, "w") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    handler = _screen_handler(screen)
    if PLAN_VARIABLE in os.environ:  # the main process shows what the logs of failed jobs say
        handler.addFilter(lambda record: record.levelno < logging.ERROR)
    logging.getLogger("actprobe").addHandler(handler)
    try:
        yield
    except ActprobeError as e:
        log.error("%s", e)
        raise SystemExit(1) from None


@contextlib.contextmanager
def on_screen() -> Iterator[None]:
    """Show what a stage says, for one that runs in the main process, which has no log."""
    logger, handler = logging.getLogger("actprobe"), _screen_handler(2)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _screen_handler(descriptor: int) -> logging.Handler:
    """Progress and errors also go to the terminal."""
    handler = logging.StreamHandler(os.fdopen(descriptor, "w", closefd=False))
    handler.setFormatter(logging.Formatter("actprobe: %(message)s"))
    return handler


def max_memory(allowed: int, given_mb: int | None) -> int:
    """Bytes that a job's work may take: what the config allows, and no more than it was given."""
    if given_mb is None:
        return allowed
    return min(allowed, given_mb * _MB - SNAKEMAKE)


def load(output: str, mem_mb: int | None = None) -> tuple[Batch, Config]:
    """The batch that makes this output, and the resolved config, from the frozen plan.

    A job is known by what it makes: the name of its rule is another one in a workflow that uses this
    one as a module.

    Files that another run on the same cache has made since the plan are left out; when these are
    all, the job ends here.

    mem_mb: what the job asked for; in an allocation that holds it to that, `max_memory` of the
    config is no more. Elsewhere an estimate is no reason to fail.
    """
    path = os.environ.get(PLAN_VARIABLE)
    if not path:
        raise ActprobeError(f"{PLAN_VARIABLE} is not set: jobs are started by snakemake")
    frozen = planning.thaw(path)
    batch = _without_finished(frozen.batch(output), frozen.config)
    _wait_for({p for t in batch.targets for p in t.inputs})
    given = mem_mb if "SLURM_JOB_ID" in os.environ else None
    store.use_scratch(_scratch(frozen.config.get("scratch")))
    limit = max_memory(frozen.config["max_memory"], given)
    return batch, frozen.config | {"max_memory": limit}


def _without_finished(batch: Batch, config: Mapping[str, Any]) -> Batch:
    if config.get("plan") == "all":  # asks for everything to be made again
        return batch
    cache = planning.Cache()
    left = tuple(t for t in batch.targets if cache.state(t) != State(THERE))
    if made := len(batch.targets) - len(left):
        log.info(
            "%s: %d of %d files were made by another run meanwhile",
            batch.rule, made, len(batch.targets),
        )  # fmt: skip
    if not left:
        raise SystemExit(0)
    return replace(batch, targets=left)


def _scratch(folder: str | None) -> str | None:
    """The config's folder on this machine."""
    found = os.path.expandvars(folder or "")
    if "$" in found:
        raise ActprobeError(
            f"scratch: {folder} names a variable that is not set on {os.uname()[1]}"
        )
    return found or None


def _wait_for(paths: set[str], seconds: float = 60) -> None:
    """Wait until files that other nodes have just published are visible on this one."""
    end = time.monotonic() + seconds
    while missing := sorted(p for p in paths if not os.path.exists(p)):
        if time.monotonic() > end:
            raise ActprobeError(f"{len(missing)} inputs are not there, e.g. {missing[0]}")
        for folder in {os.path.dirname(p) for p in missing}:
            with contextlib.suppress(OSError):
                os.listdir(folder)  # makes a network file system ask the server again
        time.sleep(0.5)


class Outcome:
    """Collects what a job finished and what could not be used; decides at the end.

    with Outcome(batch, on_bad="skip", tombstone=store.write_bad) as out:
        out.done(target, part)
        out.bad(target, reason)

    Leaving the block publishes every part when nothing was bad, or when bad inputs are to be
    skipped (their targets become tombstones). Otherwise nothing is published; sealed parts stay
    and are taken over by the next run. The error names every bad target.
    """

    def __init__(
        self, batch: Batch, on_bad: str, tombstone: Callable[[str, dict, str], Path]
    ) -> None:
        self._batch, self._skip, self._tombstone = batch, on_bad == "skip", tombstone
        store.sources({t.path: t.inputs for t in batch.targets})
        self._parts: dict[str, Path] = {}
        self._held: list[Path] = []
        self._bad: dict[str, str] = {}

    def todo(self, hold: bool = False) -> list[Target]:
        """The targets still to make: a sealed part that an earlier run left counts as done.

        hold: keep the locks of all the others until the block is left, one open file each; for
        stages whose parts are logs until they are sealed, and which must not write into another
        run's.
        """
        found = []
        for t in self._batch.targets:
            part = store.part_path(t.path)
            if hold:
                self._held.append(store.claim(t.path))
            if store.finished_part(t.path, t.key) and store.claim(t.path) == part:
                reason = store.read_header(part)["bad"]
                store.release(part)
                if reason and not self._skip:  # a run that skipped was killed
                    self.bad(t, reason)
                else:
                    self.done(t, part)
            else:
                found.append(t)
        return found

    def done(self, target: Target, part: str | Path) -> None:
        """Record a finished, sealed part."""
        self._parts[target.path] = Path(part)

    def bad(self, target: Target, reason: str | Exception) -> None:
        """Record that this target's input cannot be used."""
        self._bad[target.path] = str(reason)
        if self._skip:
            log.warning("skipped %s: %s", target.name, reason)
            self._parts[target.path] = self._tombstone(target.path, target.record, str(reason))

    @contextlib.contextmanager
    def guard(self, *targets: Target) -> Iterator[None]:
        """Record a BadInput raised inside as the reason for these targets and go on."""
        try:
            yield
        except BadInput as e:
            for t in targets:
                self.bad(t, e)

    def make(self, targets: Iterable[Target], part: Callable[[Target], Path]) -> None:
        """Make these targets one after the other; `part` writes one and returns its sealed part."""
        for t in targets:
            with self.guard(t):
                self.done(t, part(t))

    def __enter__(self) -> Outcome:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._land()
        finally:
            for part in self._held:
                store.release(part)

    def _land(self) -> None:
        if self._bad and not self._skip:
            reasons = "\n  ".join(dict.fromkeys(self._bad.values()))
            raise ActprobeError(
                f"{self._batch.rule}: {len(self._bad)} of {len(self._batch.targets)} targets "
                f"cannot be made:\n  {reasons}\n(the others are kept and not computed again; "
                "`on_bad_dataset: skip` leaves these out)"
            )
        missing = [p for p in self._batch.outputs if p not in self._parts]
        if missing:
            raise ActprobeError(f"{self._batch.rule}: no result for {missing[0]}")
        paths = list(self._parts)
        store.publish(paths, [self._parts[p] for p in paths])
