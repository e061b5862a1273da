"""Scores of rows along directions, block by block: memory holds some tens of megabytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprobe.errors import ActprobeError, BadInput
from actprobe.models import Activations

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


def pooled(a: Activations, name: str, max_memory: int) -> Matrix:
    """All rows [N, d] as float64, those of position `tokens` as means over their tokens.

    Raises ActprobeError when they, and what a fit makes of them, do not fit into max_memory bytes.
    """
    n, d = n_rows(a), a.shape[1]
    needed = 4 * 8 * n * d
    if needed > max_memory:
        raise ActprobeError(
            f"{name}: training on {n} rows of width {d} needs {needed / 1e6:,.0f} MB, max_memory "
            f"is {max_memory / 1e6:,.0f} MB"
        )
    x = np.empty((n, d))
    for block in blocks(a, name):
        x[block.rows] = block.pooled
    return x


@dataclass(frozen=True)
class Scores:
    """Scores of N rows along m directions.

    values: [m, N, 4], statistics over the tokens of a row (`STATISTICS`; where a row is one vector
    all are its score and the standard deviation is 0). first_token: [m], share of the rows with
    several tokens whose highest or lowest score is that of the first one; NaN without such rows.
    pooled: [k, N], mean scores along the directions of which only these are asked for.
    """

    values: Matrix
    first_token: Matrix
    pooled: Matrix


def score(a: Activations, name: str, unit: Matrix, means_of: Matrix) -> Scores:
    """Scores x·u of all rows along unit [m, d], and mean scores along means_of [k, d]."""
    n, m = n_rows(a), len(unit)
    values, means = np.zeros((m, n, len(STATISTICS))), np.empty((len(means_of), n))
    extreme, several = np.zeros(m), 0
    for block in blocks(a, name):
        means[:, block.rows] = means_of @ block.pooled.T
        token = unit @ block.x.T
        if a.offsets is None:
            values[:, block.rows, :3] = token[:, :, None]
            continue
        lengths = np.diff(np.append(block.starts, token.shape[1]))
        mean = np.add.reduceat(token, block.starts, axis=1) / lengths
        high = np.maximum.reduceat(token, block.starts, axis=1)
        low = np.minimum.reduceat(token, block.starts, axis=1)
        deviation = token - np.repeat(mean, lengths, axis=1)
        variance = np.add.reduceat(deviation**2, block.starts, axis=1) / lengths
        values[:, block.rows] = np.stack([mean, high, low, np.sqrt(variance)], axis=-1)
        first = token[:, block.starts]
        extreme += (((first == high) | (first == low)) & (lengths > 1)).sum(axis=1)
        several += int((lengths > 1).sum())
    return Scores(values, extreme / several if several else np.full(m, np.nan), means)


def means(a: Activations, name: str, unit: Matrix) -> Matrix:
    """Mean scores [k, N] of all rows along unit [k, d]."""
    found = np.empty((len(unit), n_rows(a)))
    for block in blocks(a, name):
        found[:, block.rows] = unit @ block.pooled.T
    return found
