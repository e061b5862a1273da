"""Scaling of feature columns by their training rows, so that no single LoRA decides the scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_BAND = 256  # columns that are scaled at once: a whole copy could be gigabytes
_SAMPLE = 4001  # training rows that quantiles are taken of
_OUTSIDE = 0.025  # share of the rows on each side that may lie anywhere
FAR = 3.0  # widths of the rest, from the median, at which a value is cut; 12 deviations of a normal


@dataclass(frozen=True)
class Scaling:
    """How columns were standardised: ends that values are cut to, float64 [p] (infinite where nothing
    is); mean and factor, float32 [p]. still: number of columns that became 0; cut: share of each row's
    values that was cut, [n]."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: Floats
    factor: Floats
    still: int
    cut: NDArray[np.float64]


def standardise(
    x: Floats,
    mask: NDArray[np.bool_],
    unit: NDArray[np.int64],
    train: Rows,
    constant: float,
) -> Scaling:
    """z-scores by the mean and standard deviation (ddof 0) of the training rows, in place.

    x: [n, p]; mask: [n, units], modules that are there (columns of the others become 0, the
    training mean); unit: unit of each column [p]. Values that lie further from the median than
    `FAR` times the range of the middle 95 % of the training rows are cut to there first. Columns
    whose standard deviation is at most `constant` times the size of their mean become 0.
    """
    p = x.shape[1]
    low, high = np.empty(p), np.empty(p)
    mean, factor = np.empty(p, np.float32), np.empty(p, np.float32)
    cut = np.zeros(len(x))
    for start in range(0, p, _BAND):
        band = slice(start, start + _BAND)
        present = mask[:, unit[band]]
        low[band], high[band], far = _cut(x[:, band], present, train)
        cut += far
        mean[band], factor[band] = _standardise(x[:, band], present, train, constant)
    share = cut / np.maximum(mask[:, unit].sum(axis=1), 1)
    return Scaling(low, high, mean, factor, int(np.sum(factor == 0)), share)


def _cut(
    x: Floats, present: NDArray[np.bool_], train: Rows
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Cut far values in place; returns the ends, and how many of each row are beyond them, [n].

    Where 95 % of the training rows agree there is no range, and nothing is cut.
    """
    rows = train[:: -(-len(train) // _SAMPLE)]
    known = np.ascontiguousarray(np.where(present[rows], x[rows], np.inf).T, np.float64)
    known.sort(axis=1)
    last = np.maximum(present[rows].sum(axis=0), 1) - 1
    at = np.ceil(_OUTSIDE * last), last // 2, np.floor((1 - _OUTSIDE) * last)
    low, middle, high = (known[np.arange(len(last)), i.astype(int)] for i in at)
    with np.errstate(invalid="ignore"):  # no row has the module: all three are infinite
        reach = np.where(high > low, FAR * (high - low), np.inf)
        ends = middle - reach, np.where(np.isfinite(reach), middle + reach, np.inf)
    ends = np.where(np.isfinite(reach), ends[0], -np.inf), ends[1]
    far = present & ((x < ends[0]) | (x > ends[1]))
    if far.any():
        np.copyto(x, np.clip(x, *ends).astype(np.float32), where=far)
    return *ends, np.asarray(far.sum(axis=1))


def _standardise(
    x: Floats, present: NDArray[np.bool_], train: Rows, constant: float
) -> tuple[Floats, Floats]:
    """z-scores in place; returns the means and the factors of the columns."""
    there = present[train]
    n = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, x[train], 0).sum(axis=0, dtype=np.float64) / n
    x -= mean.astype(np.float32)
    x[~present] = 0
    std = np.sqrt(np.square(x[train]).sum(axis=0, dtype=np.float64) / n)
    still = std <= constant * np.abs(mean)
    factor = np.where(still, 0, 1 / np.where(still, 1, std)).astype(np.float32)
    x *= factor
    return mean.astype(np.float32), factor
