"""What the codes of a dataset are like: how many, how sparse, and what they reconstruct."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache.jobs import Outcome
from actprobe.sae import assemble, quality
from actprobe.sae.assemble import Window
from actprobe.sae.blame import blaming
from actprobe.sae.encode import DENSE
from actprobe.sae.session import Session, Work, activations

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """Of the codes of a dataset: non-zeros per row [n], how many latents fire, and the facts of the
    reconstruction of sampled rows (None of a transcoder, which reconstructs another site)."""

    lengths: NDArray[np.int64]
    live: int
    quality: Mapping[str, Any] | None = None


def summaries(
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
    return quality.Sampled(activations(w.target.args.activations, rows), w.n)


def windows(w: Work, session: Session) -> Iterator[Window]:
    return assemble.windows(w.pieces, w.n, session.d_sae, session.rule.k, session.rule.scale)


def _summary(
    w: Work, session: Session, recon: quality.Reconstruction, sampled: quality.Sampled | None
) -> Summary:
    """Raises BadInput for codes that are not finite, or that lack negative ones."""
    rows, d_sae = quality.sample(w.n), session.d_sae
    lengths, live = np.zeros(w.n, np.int64), np.zeros(d_sae, bool)
    for window in windows(w, session):
        _require_usable(window, w, session)
        lengths[window.first : window.first + len(window.lengths)] = window.lengths
        live[window.latents] = True
        if sampled is not None:
            recon.add(sampled, *quality.pick(window, rows, d_sae))
    return Summary(lengths, int(live.sum()))


def _require_usable(window: Window, w: Work, session: Session) -> None:
    path, k = w.target.args.activations, session.rule.k
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


def warnings(w: Work, session: Session, found: Summary) -> list[str]:
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
