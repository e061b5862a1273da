"""Activations of all tokens: rows of unequal length, and what makes one vector of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from actprobe.errors import BadInput
from actprobe.models import open_activations


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


def concat_pca(
    train: Ragged, test: Ragged, components: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per position, the leading principal components; positions side by side, float64 [n, m].

    Each position's PCA is fitted on the train rows that are long enough, two at least, and has one
    component less than these rows at most. Rows that end before a position are at its mean, zero.
    Kantamneni et al. 2025 (arXiv 2502.16681), multi-token baselines.
    """
    columns: tuple[list[NDArray], list[NDArray]] = ([], [])
    for position in range(int(train.lengths.max(initial=0))):
        long = [np.flatnonzero(r.lengths > position) for r in (train, test)]
        if len(long[0]) < 2:
            break
        x_train, x_test = (
            r.x[r.offsets[rows] + position].astype(np.float64)
            for r, rows in zip((train, test), long, strict=True)
        )
        m = min(components, len(x_train) - 1, train.shape[1])
        pca = PCA(n_components=m, random_state=seed).fit(x_train)
        for r, rows, x, found in zip((train, test), long, (x_train, x_test), columns, strict=True):
            out = np.zeros((r.shape[0], m))
            if len(rows):
                out[rows] = pca.transform(x)
            found.append(out)
    return np.concatenate(columns[0], axis=1), np.concatenate(columns[1], axis=1)
