"""Scaling of feature columns by their training rows, so that no single LoRA decides the scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_BAND = 256  # columns that are scaled at once: a whole copy could be gigabytes
_SAMPLE = 4001  # training rows that quantiles are taken of
_OUTSIDE = 0.025  # share of the rows on each side that may lie anywhere
FAR = 3.0  # widths of the rest, from the median, at which a value is cut; 12 deviations of a normal


def standardise(
    x: Floats,
    mask: NDArray[np.bool_],
    unit: NDArray[np.int64],
    train: Rows,
    constant: float,
) -> tuple[int, NDArray[np.float64]]:
    """z-scores by the mean and standard deviation (ddof 0) of the training rows, in place.

    x: [n, p]; mask: [n, units], modules that are there (columns of the others become 0, the
    training mean); unit: unit of each column [p]. Values that lie further from the median than
    `FAR` times the range of the middle 95 % of the training rows are cut to there first. Columns
    whose standard deviation is at most `constant` times the size of their mean become 0. Returns the
    number of these, and the share of each row's values that was cut, [n].
    """
    still, cut = 0, np.zeros(len(x))
    for start in range(0, x.shape[1], _BAND):
        band = slice(start, start + _BAND)
        present = mask[:, unit[band]]
        cut += _cut(x[:, band], present, train)
        still += _standardise(x[:, band], present, train, constant)
    return still, cut / np.maximum(mask[:, unit].sum(axis=1), 1)


def _cut(x: Floats, present: NDArray[np.bool_], train: Rows) -> NDArray[np.int64]:
    """Cut far values in place; returns how many of each row, [n].

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
        far = present & (np.abs(x - middle) > reach)
    if far.any():
        np.copyto(x, np.clip(x, middle - reach, middle + reach).astype(np.float32), where=far)
    return np.asarray(far.sum(axis=1))


def _standardise(x: Floats, present: NDArray[np.bool_], train: Rows, constant: float) -> int:
    there = present[train]
    n = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, x[train], 0).sum(axis=0, dtype=np.float64) / n
    x -= mean.astype(np.float32)
    x[~present] = 0
    std = np.sqrt(np.square(x[train]).sum(axis=0, dtype=np.float64) / n)
    still = std <= constant * np.abs(mean)
    x *= np.where(still, 0, 1 / np.where(still, 1, std)).astype(np.float32)
    return int(still.sum())
