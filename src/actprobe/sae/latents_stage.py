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
from threadpoolctl import threadpool_limits

from actprobe import models, store
from actprobe.errors import BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, Target
from actprobe.sae import assemble, checks, quality
from actprobe.sae.architectures import Rule, check_folding, normalisation, prepare, rule
from actprobe.sae.assemble import Window
from actprobe.sae.blame import blaming
from actprobe.sae.encode import DENSE, RowTile, best_so_far, encode
from actprobe.sae.engine import Engine, engine
from actprobe.sae.memory import sizes
from actprobe.sae.pieces import COLUMNS, ROWS, Pieces
from actprobe.sae.sources import open_place, require_unchanged
from actprobe.sae.weights import Weights

log = logging.getLogger(__name__)


@dataclass
class Work:
    """One dataset on its way through the SAE: the n rows of its activations, and their tiles."""

    target: Target
    n: int
    pieces: Pieces
    usable: bool = True


@dataclass(frozen=True)
class Session:
    """An open SAE with everything that encoding needs."""

    name: str
    settings: Mapping[str, Any]
    weights: Weights
    rule: Rule
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
            together = max(
                1, size.rows // (4 * quality.SAMPLE)
            )  # activations, and what is made of them
            for at in range(0, len(usable), together):
                for w, found in _summaries(usable[at : at + together], session, size.block, out):
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


@contextlib.contextmanager
def opened(name: str, t: Target, config: Mapping[str, Any]) -> Iterator[Session]:
    """Open the SAE of these targets. Raises BadInput naming what is wrong with it.

    An SAE that could not be looked at while planning is compared with the site here (ConfigError).
    """
    settings = config["saes"][name]
    with blaming(f"saes.{name}"):
        sae = open_place(t.args["sae"])
        if not settings["train"]:  # one trained here belongs to them by its key
            checks.require_match(name, sae, config, t.args["extracted"])
        fold = settings["fold_decoder_norm"]
        if fold:
            check_folding(sae)
        weights = Weights(sae)
    with weights:
        require_unchanged(name, config, t.spec["sae"])
        with blaming(f"saes.{name}"):
            norms = weights.decoder_norms() if fold or sae.rescale != "none" else None
            b_dec = weights.vector("b_dec") if sae.subtract_b_dec else None
            how = rule(sae, weights.vector, norms, fold)
        device = engine(settings["device"], settings["product"])
        yield Session(name, settings, weights, how, b_dec, device)
        read = weights.bytes_read()
        log.info("%s: %.2f GB of %s read", name, sum(read.values()) / 1e9, ", ".join(read))


def _begin(t: Target, session: Session, out: Outcome) -> Iterator[Work]:
    """The work on a target, resumed or begun; nothing when its activations do not fit the SAE."""
    with out.guard(t), models.open_activations(t.args["activations"]) as a:
        if t.args["extracted"]:
            facts = store.read_header(t.args["activations"])["facts"]
            sae, path = session.weights.sae, t.args["activations"]
            checks.require_texts(session.name, sae, session.settings, facts, a.n_tokens, path)
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
    if sae.normalize == "constant_norm_rescale":
        zero = np.flatnonzero(normalisation(x, sae)[1] == 0)
        if len(zero):
            path = w.target.args["activations"]
            equal = "equal in all dimensions" if sae.center else "all zeros"
            raise BadInput(f"{path}: row {first + zero[0]} is {equal}: its norm cannot be rescaled")
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
    """Of the codes of a dataset: non-zeros per row [n], how many latents fire, and the facts of the
    reconstruction of sampled rows (None of a transcoder, which reconstructs another site)."""

    lengths: NDArray[np.int64]
    live: int
    quality: Mapping[str, Any] | None = None


def _summaries(
    works: Sequence[Work], session: Session, block: int, out: Outcome
) -> list[tuple[Work, Summary]]:
    """Summaries of encoded datasets, whose sampled rows are reconstructed together."""
    weights = session.weights
    rows = quality.SAMPLE * len(works)
    recon = quality.Reconstruction(weights, session.rule.multiplied, block, rows)
    found: list[tuple[Work, Summary, quality.Sampled | None]] = []
    for w in works:
        with out.guard(w.target):
            sampled = None if weights.sae.transcoder else _sampled(w)
            found.append((w, _summary(w, session, recon, sampled), sampled))
    with blaming(f"saes.{session.name}"):
        recon.finish()
    for _, summary, sampled in found:
        summary.quality = sampled.facts() if sampled else None
    return [(w, summary) for w, summary, _ in found]


def _sampled(w: Work) -> quality.Sampled:
    rows = slice(0, w.n) if w.n <= quality.SAMPLE else quality.sample(w.n)
    return quality.Sampled(_activations(w.target.args["activations"], rows), w.n)


def _windows(w: Work, session: Session) -> Iterator[Window]:
    return assemble.windows(w.pieces, w.n, session.d_sae, session.rule.k, session.rule.scale)


def _summary(
    w: Work, session: Session, recon: quality.Reconstruction, sampled: quality.Sampled | None
) -> Summary:
    """Raises BadInput for codes that are not finite, or that lack negative ones."""
    rows, d_sae = quality.sample(w.n), session.d_sae
    lengths, live = np.zeros(w.n, np.int64), np.zeros(d_sae, bool)
    for window in _windows(w, session):
        _require_usable(window, w, session)
        lengths[window.first : window.first + len(window.lengths)] = window.lengths
        live[window.latents] = True
        if sampled is not None:
            recon.add(sampled, *quality.pick(window, rows, d_sae))
    return Summary(lengths, int(live.sum()))


def _require_usable(window: Window, w: Work, session: Session) -> None:
    path, k = w.target.args["activations"], session.rule.k
    if not np.isfinite(window.values).all():
        owner = np.repeat(np.arange(len(window.lengths)), window.lengths)
        bad = owner[~np.isfinite(window.values)][0]
        raise BadInput(f"{path}: row {window.first + bad} has latents of {session.name} that are "
                       "not finite: its activations or the SAE's weights are too large")  # fmt: skip
    if session.rule.signed and k and (window.lengths < k).any():
        row = int(np.flatnonzero(window.lengths < k)[0])
        raise BadInput(
            f"{path}: row {window.first + row} has {window.lengths[row]} positive latents of "
            f"{session.name}, whose k is {k}: the others would be negative, which is not supported"
        )


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
        "warnings": _warnings(w, session, found),
    }
    spec = dict(w.target.spec)
    with models.open_activations(w.target.args["activations"]) as a:
        offsets = a.offsets
    return assemble.write(w.target.path, spec, facts, lengths, d_sae, _windows(w, session), offsets)


def _warnings(w: Work, session: Session, found: Summary) -> list[str]:
    """What is wrong with codes that are empty or not sparse; also said in the log."""
    share, said = found.lengths.mean() / session.d_sae, []
    if not found.lengths.any():
        said.append("no latent fires on any row")
    elif share > DENSE:
        said.append(f"{100 * share:.0f} % of the latents fire on a row: not sparse")
    if said:
        log.warning(
            "%s on %s: %s; are the SAE, the site and the normalisation the right ones?",
            session.name, w.target.item, said[0],
        )  # fmt: skip
    return said
