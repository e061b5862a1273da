"""Rows averaged over their tokens, and their scores along a direction, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.models import Activations, open_activations

Matrix = NDArray[np.float64]
STATISTICS = ("mean", "max", "min", "std")
_BLOCK = 1 << 25  # bytes of activations, as float64, in memory


@dataclass(frozen=True)
class Block:
    """Some rows: x [t, d], one row of x per token (one in all where a row is one vector), where
    each of them begins [n], and the means over tokens [n, d]."""

    first: int
    x: Matrix
    starts: NDArray[np.int64]
    pooled: Matrix

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.starts))


def n_rows(a: Activations) -> int:
    """Rows of the dataset, which for position `tokens` are not the rows of x."""
    return len(a.n_tokens)


def blocks(a: Activations, name: str) -> Iterator[Block]:
    """All rows in order, float64. Raises BadInput naming the file and row of a non-finite value."""
    n, d = n_rows(a), a.shape[1]
    ends = np.arange(n + 1, dtype=np.int64) if a.offsets is None else a.offsets
    most = max(1, _BLOCK // (8 * d))
    first = 0
    while first < n:
        stop = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        stop = min(max(stop, first + 1), n)
        x = a[int(ends[first]) : int(ends[stop])].astype(np.float64)
        starts = ends[first:stop] - ends[first]
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            row = first + int(np.searchsorted(starts, finite.argmin(), side="right")) - 1
            raise BadInput(f"{name}: row {row} is not finite")
        if a.offsets is None:
            pooled = x
        else:
            lengths = np.diff(ends[first : stop + 1])
            if not lengths.all():
                row = first + int(lengths.argmin())
                raise BadInput(f"{name}: row {row} has no tokens")
            pooled = np.add.reduceat(x, starts) / lengths[:, None]
        yield Block(first, x, starts, pooled)
        first = stop


def pooled(path: str) -> Matrix:
    """All rows of an activations artefact [N, d] as float64, those of position `tokens` as means over
    their tokens. Raises BadInput for a tombstone and for a value that is not finite."""
    with open_activations(path) as a:
        x = np.empty((n_rows(a), a.shape[1]))
        for block in blocks(a, path):
            x[block.rows] = block.pooled
    return x


@dataclass(frozen=True)
class Statistics:
    """Scores of all N rows of an artefact along one direction, over the tokens of each.

    values: [N, 4], `STATISTICS` (where a row is one vector all are its score and the standard deviation
    is 0); first_extreme: [N], 1 where the first of several tokens has the highest or lowest score, 0
    where it has not, NaN for a row of one token; n_tokens: int32 [N], -1 where an imported cache does
    not tell it.
    """

    values: Matrix
    first_extreme: NDArray[np.float64]
    n_tokens: NDArray[np.int32]


def statistics(path: str, unit: NDArray[np.float64]) -> Statistics:
    """Scores x·u of all rows along unit [d]."""
    with open_activations(path) as a:
        n = n_rows(a)
        values, extreme = np.zeros((n, len(STATISTICS))), np.full(n, np.nan)
        for block in blocks(a, path):
            token = block.x @ unit
            if a.offsets is None:
                values[block.rows, :3] = token[:, None]
                continue
            lengths = np.diff(np.append(block.starts, len(token)))
            mean = np.add.reduceat(token, block.starts) / lengths
            high = np.maximum.reduceat(token, block.starts)
            low = np.minimum.reduceat(token, block.starts)
            deviation = token - np.repeat(mean, lengths)
            variance = np.add.reduceat(deviation**2, block.starts) / lengths
            values[block.rows] = np.stack([mean, high, low, np.sqrt(variance)], axis=-1)
            first = token[block.starts]
            found = ((first == high) | (first == low)).astype(np.float64)
            extreme[block.rows] = np.where(lengths > 1, found, np.nan)
        kept = a.n_tokens if a.offsets is None else np.diff(a.offsets)
    return Statistics(values, extreme, kept.astype(np.int32))
