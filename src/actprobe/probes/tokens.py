"""Activations of all tokens: rows of unequal length, and what makes one vector of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from actprobe.base.errors import BadInput
from actprobe.models import open_activations
from actprobe.probes.keep import Kept


@dataclass(frozen=True)
class Ragged:
    """Token activations of N rows.

    x: float32 [T, d]; offsets: int64 [N + 1], row i is x[offsets[i]:offsets[i + 1]].
    """

    x: NDArray[np.float32]
    offsets: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as of a matrix with one vector per row."""
        return len(self.offsets) - 1, self.x.shape[1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row [N]."""
        return np.diff(self.offsets)

    def rows(self, rows: NDArray[np.int64], most: int) -> Ragged:
        """The given rows in that order, each with its last `most` tokens at most."""
        end = self.offsets[rows + 1]
        lengths = np.minimum(self.lengths[rows], most)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) + np.repeat(end - lengths - offsets[:-1], lengths)
        return Ragged(self.x[at], offsets)


def read_tokens(path: str) -> Ragged:
    """An activations artefact of position `tokens`.

    Raises BadInput for a tombstone, and when a value is not finite.
    """
    with open_activations(path) as a:
        assert a.offsets is not None
        tokens = Ragged(a[:], a.offsets.astype(np.int64))
    bad = np.flatnonzero(~np.isfinite(tokens.x).all(axis=1))
    if len(bad):
        row = int(np.searchsorted(tokens.offsets, bad[0], "right")) - 1
        raise BadInput(f"{path}: {len(bad)} tokens are not finite, the first in row {row}")
    return tokens


@dataclass(frozen=True)
class Positions:
    """Principal components of each position: components [m, d] and mean [d] of each, m of its own."""

    components: Sequence[NDArray[np.float64]]
    mean: Sequence[NDArray[np.float64]]

    def columns(self, rows: Ragged) -> NDArray[np.float64]:
        """The components of all positions side by side; rows that end before a position are at its
        mean, zero."""
        found = []
        for position, (components, mean) in enumerate(zip(self.components, self.mean, strict=True)):
            long = np.flatnonzero(rows.lengths > position)
            out = np.zeros((rows.shape[0], len(components)))
            if len(long):
                x = rows.x[rows.offsets[long] + position].astype(np.float64)
                out[long] = x @ components.T - mean @ components.T
            found.append(out)
        return np.concatenate(found, axis=1)

    def folded(self, of: Kept) -> Kept:
        """A linear model on these columns as one on the tokens themselves (`keep.scorers.positions`)."""
        ends = np.cumsum([len(c) for c in self.components])[:-1]
        parts = np.split(of.arrays["coef"], ends, axis=-1)
        coef = [w @ c for w, c in zip(parts, self.components, strict=True)]
        offset = [-(w @ m) for w, m in zip(coef, self.mean, strict=True)]
        arrays = {
            "coef": np.stack(coef, axis=-2),
            "offset": np.stack(offset, axis=-1),
            "intercept": of.arrays["intercept"],
        }
        return Kept("positions", arrays, (), of.link)


def concat_pca(train: Ragged, components: int, seed: int) -> Positions:
    """Per position, the leading principal components.

    Each position's PCA is fitted on the train rows that are long enough, two at least, and has one
    component less than these rows at most. Kantamneni et al. 2025 (arXiv 2502.16681), multi-token
    baselines.
    """
    found: list[PCA] = []
    for position in range(int(train.lengths.max(initial=0))):
        long = np.flatnonzero(train.lengths > position)
        if len(long) < 2:
            break
        x = train.x[train.offsets[long] + position].astype(np.float64)
        m = min(components, len(x) - 1, train.shape[1])
        found.append(PCA(n_components=m, random_state=seed).fit(x))
    return Positions([p.components_ for p in found], [p.mean_ for p in found])
