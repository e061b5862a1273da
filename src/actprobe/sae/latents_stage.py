"""The latents stage: one SAE, opened once, over the rows of every pending dataset."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from threadpoolctl import threadpool_limits

from actprobe import models, store
from actprobe.errors import BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, Target
from actprobe.sae import assemble, checks, quality
from actprobe.sae.architectures import Rule, check_folding, prepare, rule
from actprobe.sae.assemble import Window
from actprobe.sae.encode import DENSE, RowTile, best_so_far, encode
from actprobe.sae.engine import Engine, engine
from actprobe.sae.memory import sizes
from actprobe.sae.pieces import COLUMNS, ROWS, Pieces
from actprobe.sae.sources import open_place, require_unchanged
from actprobe.sae.weights import Weights

log = logging.getLogger(__name__)

_TOGETHER = 64  # datasets whose sampled rows are reconstructed in one pass over W_dec


@dataclass
class Work:
    """One dataset on its way through the SAE: the n rows of its activations, and their tiles."""

    target: Target
    n: int
    pieces: Pieces
    usable: bool = True


@dataclass(frozen=True)
class Session:
    """An open SAE with everything that encoding needs.

    norms: decoder row norms, where latents are multiplied by them.
    """

    name: str
    weights: Weights
    rule: Rule
    norms: NDArray[np.float32] | None
    b_dec: NDArray[np.float32] | None
    engine: Engine

    @property
    def d_sae(self) -> int:
        return self.weights.sae.d_sae


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch: one pass over the SAE when the rows fit in memory.

    A dataset whose activations cannot be used is reported to the outcome; the others go on.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config["on_bad_dataset"], store.write_bad))
        _allow_open_files(len(batch.targets))
        todo = out.todo(hold=True)
        if not todo:
            return
        stack.enter_context(threadpool_limits(threads))
        with out.guard(*todo):
            session = stack.enter_context(opened(batch.loader, todo[0], config))
            on_torch = session.engine.name != "numpy"
            size = sizes(config["max_memory"], session.weights, on_torch)
            works = [w for t in todo for w in _begin(t, session, out)]
            for group in _groups(works, session.d_sae, size.rows):
                _pass(group, session, size.block, out)
            usable = [w for w in works if w.usable]
            for at in range(0, len(usable), _TOGETHER):
                for w, found in _summaries(usable[at : at + _TOGETHER], session):
                    out.done(w.target, _finish(w, found, session))


def _allow_open_files(n: int) -> None:
    """The lock of each of n parts is an open file, and the usual limit may be as low as 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + 128
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def opened(name: str, t: Target, config: Mapping[str, Any]) -> Iterator[Session]:
    """Open the SAE of these targets. Raises BadInput naming what is wrong with it.

    An SAE that could not be looked at while planning is compared with the site here (ConfigError).
    """
    settings = config["saes"][name]
    sae = open_place(t.args["sae"])
    if not settings["overrides"]["ignore_mismatch"]:
        checks.require_match(name, sae, settings, config["models"], t.args["extracted"])
    fold = settings["fold_decoder_norm"]
    if fold:
        check_folding(sae)
    with Weights(sae) as weights:
        require_unchanged(name, config, t.spec["sae"])
        # The decoder that speaks to the activations is W_dec / input_scale.
        norms = weights.decoder_norms() / sae.input_scale if fold or sae.rescale else None
        b_dec = weights.vector("b_dec") if sae.subtract_b_dec else None
        yield Session(
            name,
            weights,
            rule(sae, weights.vector, norms, fold),
            norms,
            b_dec,
            engine(settings["device"], settings["product"]),
        )
        read = weights.bytes_read()
        log.info("%s: %.2f GB of %s read", name, sum(read.values()) / 1e9, ", ".join(read))


def _begin(t: Target, session: Session, out: Outcome) -> Iterator[Work]:
    """The work on a target, resumed or begun; nothing when its activations do not fit the SAE."""
    with out.guard(t), models.open_activations(t.args["activations"]) as a:
        width, d_in = int(np.prod(a.shape[1:])), session.weights.sae.d_in
        if width != d_in:
            raise BadInput(
                f"{t.args['activations']}: activations of width {width}; {session.name} encodes "
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
    x = _activations(w.target.args["activations"], slice(first, min(first + ROWS, w.n)))
    sae = session.weights.sae
    zero = np.flatnonzero(~x.any(axis=1))
    if sae.normalize == "constant_norm_rescale" and len(zero):
        path = w.target.args["activations"]
        raise BadInput(f"{path}: row {first + zero[0]} is all zeros: its norm cannot be rescaled")
    x = prepare(x, sae, session.b_dec)
    k = session.rule.k
    best = best_so_far(w.pieces, index, len(x), k, session.d_sae) if k else None
    return RowTile(w.pieces, index, session.engine.put(x), best)


def _activations(path: str, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32 [n, d_in] of some rows; heads are flattened. Raises BadInput for one not finite."""
    with models.open_activations(path) as a:
        x = a[rows]
    x = x.reshape(len(x), -1)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        places = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        raise BadInput(f"{path}: row {places[bad[0]]} is not finite")
    return x


@dataclass
class Summary:
    """Of the codes of a dataset: non-zeros per row [n], how many latents fire, the latents of the
    sampled rows, and the share of variance that these explain (None where that says nothing)."""

    lengths: NDArray[np.int64]
    live: int
    sample: csr_array
    explained: float | None = None


def _summaries(works: Sequence[Work], session: Session) -> list[tuple[Work, Summary]]:
    """Summaries of encoded datasets; W_dec is read once for all of them."""
    found = [_summary(w, session) for w in works]
    if not session.weights.sae.transcoder:
        x = [_activations(w.target.args["activations"], quality.sample(w.n)) for w in works]
        z = [s.sample for s in found]
        shares = quality.explained(z, x, session.weights, session.norms)
        for summary, share in zip(found, shares, strict=True):
            summary.explained = share
    return list(zip(works, found, strict=True))


def _windows(w: Work, session: Session) -> Iterator[Window]:
    return assemble.windows(w.pieces, w.n, session.d_sae, session.rule.k, session.rule.scale)


def _summary(w: Work, session: Session) -> Summary:
    rows = quality.sample(w.n)
    lengths, live, picked = np.zeros(w.n, np.int64), np.zeros(session.d_sae, bool), []
    for window in _windows(w, session):
        lengths[window.first : window.first + len(window.lengths)] = window.lengths
        live[window.latents] = True
        picked.append(quality.pick(window, rows, session.d_sae))
    return Summary(lengths, int(live.sum()), vstack(picked, format="csr"))


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
        "variance_explained": found.explained,
        "sample": found.sample.shape[0],
        "warnings": _warnings(w, session, lengths),
    }
    spec = dict(w.target.spec)
    with models.open_activations(w.target.args["activations"]) as a:
        offsets = a.offsets
    return assemble.write(w.target.path, spec, facts, lengths, d_sae, _windows(w, session), offsets)


def _warnings(w: Work, session: Session, lengths: NDArray[np.int64]) -> list[str]:
    """What is wrong with codes that are empty or not sparse; also said in the log."""
    found = []
    share = lengths.mean() / session.d_sae
    if not lengths.any():
        found.append("no latent fires on any row")
    elif share > DENSE:
        found.append(f"{100 * share:.0f} % of the latents fire on a row: not sparse")
    if found:
        log.warning(
            "%s on %s: %s; are the SAE, the site and the normalisation the right ones?",
            session.name, w.target.item, found[0],
        )  # fmt: skip
    return found
