"""Labels exchanged at random as far as the data allow it: the null of a probe, and of a control."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Rng = np.random.RandomState | np.random.Generator


def exchanged(y: NDArray[Any], group: NDArray[Any], rng: Rng) -> NDArray[Any]:
    """Labels or values y [n] in a random order in which no group [n] changes what it is.

    Rows of a group with several labels exchange them among themselves (the two rows of a pair swap or
    do not); groups of one label exchange theirs as wholes, so that an author whose texts all have
    one label still has one. Without such groups this is an ordinary permutation. Winkler et al.
    2015, Multi-level block permutation.
    """
    _, at = np.unique(group, return_inverse=True)
    lowest, highest = _extremes(y, at)
    mixed, label_of = lowest < highest, lowest.copy()
    label_of[~mixed] = rng.permutation(label_of[~mixed])
    found = label_of[at]
    rows = np.flatnonzero(mixed[at])
    if len(rows):
        before = rows[np.argsort(at[rows], kind="stable")]
        shuffled = rows[np.lexsort((rng.permutation(len(rows)), at[rows]))]
        found[shuffled] = y[before]
    return found


def _extremes(y: NDArray[Any], at: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest label of each group."""
    order = np.lexsort((y, at))
    first = np.flatnonzero(np.diff(at[order], prepend=-1))
    last = np.append(first[1:], len(y)) - 1
    return y[order[first]], y[order[last]]


def arrangements(y: NDArray[Any], group: NDArray[Any]) -> float:
    """How many orders `exchanged` can give; inf where they are beyond counting."""
    _, at = np.unique(group, return_inverse=True)
    size, positive = np.bincount(at), np.bincount(at, weights=y)
    mixed = (positive > 0) & (positive < size)
    whole = float((~mixed).sum())
    log = _log_choose(size[mixed], positive[mixed]).sum()
    log += _log_choose(whole, float((positive == size).sum()))
    return float(np.exp(log)) if log < 700 else float("inf")


def _log_choose(n: Any, k: Any) -> Any:
    return gammaln(np.add(n, 1.0)) - gammaln(np.add(k, 1.0)) - gammaln(np.subtract(n, k) + 1.0)
