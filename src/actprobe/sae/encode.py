"""One pass over the latent blocks of an SAE for the stacked rows of many datasets."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.sae.architectures import Rule
from actprobe.sae.engine import Engine
from actprobe.sae.pieces import COLUMNS, WAITING, Pieces, place, tile_width
from actprobe.sae.topk import Best
from actprobe.sae.weights import Matrix

log = logging.getLogger(__name__)

DENSE = 0.2  # share of latents above which codes are not sparse

_WAIT_SECONDS = 2.0  # how long encoded tiles wait to be written: the most a kill can cost
_SAFE_SECONDS = 10.0  # how often they are forced to disk: the most a power cut can cost
_SAY_SECONDS = 20.0


@dataclass
class RowTile:
    """Up to ROWS prepared rows of one dataset.

    x: [r, d] on the engine's device; index: which row tile of the dataset; best: of a top k.
    """

    pieces: Pieces
    index: int
    x: Any
    best: Best | None = None

    @property
    def done(self) -> int:
        """Column tiles that are encoded; always the first ones."""
        return self.pieces.done(self.index)


def best_so_far(pieces: Pieces, index: int, rows: int, k: int, d_sae: int) -> Best:
    """The k best entries of each row of a row tile among what is encoded."""
    best = Best(rows, min(k, d_sae))
    for column, (flat, value) in enumerate(pieces.tiles(index)):
        best.add(*place(flat, column, d_sae), value)
    return best


class _Writer:
    """Writes encoded tiles before they are too many or too old."""

    def __init__(self, tiles: Sequence[RowTile]):
        self._logs = list({id(t.pieces): t.pieces for t in tiles}.values())
        self._bytes, self._written = 0, time.monotonic()
        self._safe = self._written

    def added(self, size: int) -> None:
        """So many bytes more are waiting."""
        self._bytes += size
        if self._bytes > WAITING or time.monotonic() - self._written > _WAIT_SECONDS:
            self.flush()

    def flush(self, last: bool = False) -> None:
        """Write all that waits; to the disk when it is the last, or time."""
        now = time.monotonic()
        safe = last or now - self._safe > _SAFE_SECONDS
        for pieces in self._logs:
            pieces.flush(safe)
        self._bytes, self._written = 0, now
        self._safe = now if safe else self._safe


def encode(
    tiles: Sequence[RowTile], encoder: Matrix, rule: Rule, engine: Engine, block: int, name: str
) -> None:
    """Encode all latents of all tiles; each block of W_enc is read once, and only if needed.

    block: latents read at a time, a multiple of COLUMNS.
    """
    d_sae = encoder.n
    starts = [b for b in range(0, d_sae, block)
              if any(t.done * COLUMNS < min(b + block, d_sae) for t in tiles)]  # fmt: skip
    began = said = time.monotonic()
    writer = _Writer(tiles)
    for n, low in enumerate(starts):
        high = min(low + block, d_sae)
        if n == 0:
            encoder.prefetch(low, high)
        w = engine.put(encoder.block(low, high))
        if n + 1 < len(starts):
            encoder.prefetch(starts[n + 1], min(starts[n + 1] + block, d_sae))
        vectors = {key: engine.put(v[low:high]) for key, v in rule.vectors.items()}
        for t in tiles:
            _encode_block(t, w, vectors, rule, engine, low, high, d_sae, writer)
        if n == 0 and rule.k is None:
            _warn_dense(tiles, high, name)
        writer.flush(last=n + 1 == len(starts))
        now = time.monotonic()
        if now - said > _SAY_SECONDS:
            said, left = now, (now - began) / (n + 1) * (len(starts) - n - 1)
            log.info("%s: latent %d of %d, %d s left", name, high, d_sae, left)


def _warn_dense(tiles: Sequence[RowTile], latents: int, name: str) -> None:
    """Say early that codes are not sparse: they may fill the disk."""
    entries = sum(t.pieces.entries(t.index) for t in tiles)
    share = entries / (latents * sum(len(t.x) for t in tiles))
    if share > DENSE:
        log.warning("%s: %.0f %% of the first %d latents fire on a row", name, 100 * share, latents)


def _encode_block(
    t: RowTile,
    w: Any,
    vectors: dict[str, Any],
    rule: Rule,
    engine: Engine,
    low: int,
    high: int,
    d_sae: int,
    writer: _Writer,
) -> None:
    """The column tiles of the block low..high that a row tile still lacks."""
    while t.done * COLUMNS < high:
        column = t.done
        a = column * COLUMNS - low
        b = a + tile_width(column, d_sae)
        p = engine.product(t.x, w[:, a:b])
        flat, value = _chosen(p, {key: v[a:b] for key, v in vectors.items()}, t, rule, engine)
        if t.best is not None:
            t.best.add(*place(flat, column, d_sae), value)
        writer.added(t.pieces.add(t.index, flat, value))


def _chosen(
    p: Any, vectors: dict[str, Any], t: RowTile, rule: Rule, engine: Engine
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """What is kept of the pre-activations of a tile, in strips that stay in the cache."""
    found = []
    for low in range(0, len(p), engine.strip):
        strip = p[low : low + engine.strip]
        chosen, value = rule.fire(strip, vectors)
        if t.best is not None:
            assert rule.k is not None
            chosen = engine.largest(chosen, t.best.floor[low : low + engine.strip], rule.k)
        flat, value = engine.kept(chosen, value)
        found.append((flat + np.uint32(low * p.shape[1]), value))
    return np.concatenate([f for f, _ in found]), np.concatenate([v for _, v in found])
