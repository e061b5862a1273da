"""Makes a batch of probe results: a pool of worker processes with one thread each."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch, Target
from actprobe.probes import controls, door, extensions, fit, memory, needs
from actprobe.probes import protocol as protocols
from actprobe.probes.columns import COUNT, FLAG, NUMBER, TEXT, types
from actprobe.probes.records import FeatureArgs, FitArgs

Rows = Callable[[], list[dict[str, Any]]]
# Makes the rows of a target, in a worker; and writes them, which returns the sealed part.
Making = tuple[Callable[[Any], list[dict[str, Any]]], Callable[[Any, list[dict[str, Any]]], Path]]

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def columns(with_controls: bool = False, keeps: bool = False) -> pa.Schema:
    """The table of an artefact: what says which fit a row is, every registered metric, what the
    controls of a protocol tell, and what is kept."""
    arrow = {TEXT: pa.string(), COUNT: pa.int32(), NUMBER: pa.float64(), FLAG: pa.bool_()}
    return pa.schema(
        [
            *((name, arrow[kind]) for name, kind in types().items() if name != "experiment"),
            *(controls.columns() if with_controls else []),
            *door.columns(keeps, with_controls),
        ]
    )


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch with at most `threads` workers.

    A worker's numbers do not depend on the others: any number of workers gives the same bytes.
    Targets that an interrupted run had finished are taken as they are.
    """
    extensions.loaded(config)
    with Outcome(batch, config["on_bad_dataset"], _tombstone) as out:
        todo = list(_useful(out))
        _tell(todo)
        fill(out, todo, batch.rule, config, threads, (fit.rows, _write))


def fill(
    out: Outcome,
    todo: Iterable[Target],
    rule: str,
    config: Mapping[str, Any],
    threads: int,
    making: Making,
) -> None:
    """Make these targets with at most `threads` workers, the longest first."""
    todo = sorted(todo, key=lambda t: (-_work(t), t.path))
    made, write = making
    progress = _Progress(rule, todo)
    for t, rows in _results(todo, _workers(todo, threads, config["max_memory"]), made):
        with out.guard(t):
            out.done(t, write(t, rows()))
        progress.step(t)


def _useful(out: Outcome) -> Iterator[Target]:
    """What is to do, but for the datasets of which the plan says that no fit can have a number."""
    for t in out.todo():
        if reason := getattr(t.args, "unfit", None):
            out.bad(t, reason)
        else:
            yield t


def _tell(todo: list[Target]) -> None:
    """Log once for each dataset what a protocol does not use of it."""
    told = dict.fromkeys(
        (t.args.texts, t.item, t.args.protocol, t.spec.setting, t.spec.method)
        for t in todo
        if isinstance(t.args, FitArgs)
    )
    lines: dict[str, None] = {}
    for texts, dataset, name, setting, method in told:
        needed = needs.requirements(name, [setting], [method])
        for words in needs.remarks(needed, store.read_header(texts)["facts"]):
            lines[f"{dataset}: {words}"] = None
    for line in lines:
        log.warning("%s", line)


def _write(t: Target, rows: list[dict[str, Any]]) -> Path:
    schema = columns("controls" in protocols.load(t.args.protocol), t.spec.keep)
    return store.write_table(t.path, pa.Table.from_pylist(rows, schema), t.record)


def _tombstone(path: str, spec: dict[str, Any], reason: str) -> Path:
    return store.write_table(path, columns().empty_table(), spec, bad=reason)


def _size(t: Target) -> int:
    """Bytes of the numbers that a target reads; 0 when they are not there."""
    args = t.args
    read = args.features if isinstance(args, FeatureArgs) else (args.matrix or args.fit,)
    try:
        return sum(map(os.path.getsize, read))
    except OSError:
        return 0


def _work(t: Target) -> float:
    return t.cost * max(_size(t), 1)


def _workers(todo: list[Target], threads: int, max_memory: int) -> int:
    """As many as there are threads and targets, and as fit into memory; raises ActprobeError where
    one does not."""
    most = memory.require(todo, max_memory)
    return max(1, min(threads, len(todo), max_memory // most))


def _results(
    todo: list[Target], workers: int, made: Callable[[Any], list[dict[str, Any]]]
) -> Iterator[tuple[Target, Rows]]:
    """Each target with a function that returns its rows or raises, as they become ready."""
    if workers == 1:
        with threadpool_limits(1):
            for t in todo:
                yield t, partial(_rows, made, t)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, spawn, initializer=_start_worker, initargs=(extensions.paths(),)
    )
    try:
        with _worker_environment(), _killed_workers_named():
            futures = {pool.submit(_rows, made, t): t for t in todo}
        for future in as_completed(futures):
            yield futures[future], _killed_workers_named()(future.result)
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _killed_workers_named() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as e:
        raise ActprobeError(
            "a probe worker was killed, perhaps for want of memory; fewer `threads.probes` or a "
            "smaller `max_memory` start fewer workers"
        ) from e


def _rows(made: Callable[[Any], list[dict[str, Any]]], t: Target) -> list[dict[str, Any]]:
    try:
        return made(t)
    except Exception as e:
        e.add_note(f"while making {t.name}")
        raise


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """While workers start: one thread for every math library, and no main module to run again.

    A spawned process imports the parent's main file, which here is Snakemake's copy of a script.
    """
    main = sys.modules["__main__"]
    file, spec = main.__dict__.pop("__file__", None), main.__spec__
    before = {v: os.environ.get(v) for v in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


def _start_worker(own_files: tuple[str, ...]) -> None:
    """Know what the parent knows, and end when it is killed: a worker would wait for work for ever."""
    extensions.load(own_files)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    threadpool_limits(1)


class _Progress:
    """Logs the share of work done, the rate and the time left, at most every five seconds."""

    def __init__(self, rule: str, todo: list[Target]) -> None:
        self._rule, self._n, self._done, self._worked = rule, len(todo), 0, 0.0
        self._total = sum(map(_work, todo))
        self._begin = self._said = time.monotonic()

    def step(self, t: Target) -> None:
        self._done += 1
        self._worked += _work(t)
        now = time.monotonic()
        if now - self._said < 5 and self._done < self._n:
            return
        self._said, seconds = now, now - self._begin
        log.info(
            "%s: %d of %d probe files, %.2f/s, about %.0f s left",
            self._rule,
            self._done,
            self._n,
            self._done / max(seconds, 1e-9),
            seconds * (self._total / self._worked - 1),
        )
