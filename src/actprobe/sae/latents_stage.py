"""The latents stage: one SAE, opened once, over the rows of every pending dataset."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from actprobe import models
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.config import Config
from actprobe.sae import assemble, checks, quality
from actprobe.sae.architectures import normalisation, prepare
from actprobe.sae.encode import RowTile, best_so_far, encode
from actprobe.sae.memory import sizes
from actprobe.sae.pieces import COLUMNS, ROWS, Pieces
from actprobe.sae.records import LatentTarget
from actprobe.sae.session import Session, Work, activations, opened
from actprobe.sae.summary import Summary, summaries, warnings, windows

log = logging.getLogger(__name__)


def run(batch: Batch, config: Config, threads: int) -> None:
    """Make all targets of a batch: one pass over the SAE when the rows fit in memory.

    A dataset whose activations cannot be used is reported to the outcome; the others go on.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config.on_bad_dataset, store.write_bad))
        _allow_open_files(len(batch.targets))
        todo = out.todo(hold=True)
        if not todo:
            return
        stack.enter_context(threadpool_limits(threads))
        with out.guard(*todo):
            session = stack.enter_context(opened(batch.loader, todo[0], config))
            on_torch = session.engine.name != "numpy"
            size = sizes(config.max_memory, session.weights, on_torch)
            works = [w for t in todo for w in _begin(t, session, out)]
            for group in _groups(works, session.d_sae, size.rows):
                _pass(group, session, size.block, out)
            usable = [w for w in works if w.usable]
            together = max(
                1, size.rows // (4 * quality.SAMPLE)
            )  # activations, and what is made of them
            for at in range(0, len(usable), together):
                for w, found in summaries(usable[at : at + together], session, size.block, out):
                    with out.guard(w.target):
                        out.done(w.target, _finish(w, found, session))


def _allow_open_files(n: int) -> None:
    """The lock of each of n parts is an open file, and the usual limit may be as low as 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + 128
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _begin(t: LatentTarget, session: Session, out: Outcome) -> Iterator[Work]:
    """The work on a target, resumed or begun; nothing when its activations do not fit the SAE."""
    with out.guard(t), models.open_activations(t.args.activations) as a:
        if t.args.extracted:
            facts = store.read_header(t.args.activations)["facts"]
            sae, path = session.weights.sae, t.args.activations
            checks.require_texts(session.name, sae, session.settings, facts, a.n_tokens, path)
        width, d_in = int(np.prod(a.shape[1:])), session.weights.sae.d_in
        if width != d_in:
            raise BadInput(
                f"{t.args.activations}: activations of width {width}; {session.name} encodes "
                f"width {d_in}"
            )
        yield Work(t, a.shape[0], Pieces(store.claim(t.path), t.key))


def _groups(works: Sequence[Work], d_sae: int, rows: int) -> Iterator[list[tuple[Work, int]]]:
    """Row tiles that are not encoded, (work, index), as many at a time as memory holds."""
    todo = [
        (w, index)
        for w in works
        for index in range(-(-w.n // ROWS))
        if w.pieces.done(index) * COLUMNS < d_sae
    ]
    for at in range(0, len(todo), rows // ROWS):
        yield todo[at : at + rows // ROWS]


def _pass(group: Sequence[tuple[Work, int]], session: Session, block: int, out: Outcome) -> None:
    """Encode some row tiles in one pass over the SAE."""
    tiles = []
    for w, index in group:
        if w.usable:
            w.usable = False
            with out.guard(w.target):
                tiles.append(_tile(w, index, session))
                w.usable = True
    log.info("%s: %d row tiles", session.name, len(tiles))
    encode(tiles, session.weights.encoder, session.rule, session.engine, block, session.name)


def _tile(w: Work, index: int, session: Session) -> RowTile:
    first = index * ROWS
    x = activations(w.target.args.activations, slice(first, min(first + ROWS, w.n)))
    sae = session.weights.sae
    if sae.normalize == "constant_norm_rescale":
        zero = np.flatnonzero(normalisation(x, sae)[1] == 0)
        if len(zero):
            path = w.target.args.activations
            equal = "equal in all dimensions" if sae.center else "all zeros"
            raise BadInput(f"{path}: row {first + zero[0]} is {equal}: its norm cannot be rescaled")
    x = prepare(x, sae, session.b_dec)
    k = session.rule.k
    best = best_so_far(w.pieces, index, len(x), k, session.d_sae) if k else None
    return RowTile(w.pieces, index, session.engine.put(x), best)


def _finish(w: Work, found: Summary, session: Session) -> Path:
    """Write the artefact of an encoded dataset; returns its sealed part."""
    sae, d_sae, lengths = session.weights.sae, session.d_sae, found.lengths
    facts = {
        "d_in": sae.d_in,
        "architecture": sae.architecture,
        "engine": session.engine.name,
        "nnz": int(lengths.sum()),
        "l0": {
            "mean": float(f"{lengths.mean():.6g}"),
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "live": found.live,
        "dead": d_sae - found.live,
        **(found.quality or {"variance_explained": None, "sample": 0}),
        "warnings": warnings(w, session, found),
    }
    spec = w.target.record
    with models.open_activations(w.target.args.activations) as a:
        offsets = a.offsets
    return assemble.write(w.target.path, spec, facts, lengths, d_sae, windows(w, session), offsets)
