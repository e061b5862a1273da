"""From which score on a row counts as class 1: rules, applied when results are read.

A row is flagged where its score is strictly larger than the threshold. The rows that decide are not
those that were fitted: validation rows where the split has some, else train rows as scored by fits that
had not seen them, else the test rows; `Threshold.rows` says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUNDARY = 0.5  # of every method's scores of two classes
VALIDATION, HELD_OUT, TEST = "validation rows", "held-out train rows", "test rows"

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """value: scores above it are class 1; rule: its name; rows: that decided ("" for the boundary);
    negatives: rows of class 0 among them; flagged: how many of these are above it."""

    value: float
    rule: str
    rows: str = ""
    negatives: int = 0
    flagged: int = 0

    @property
    def fpr(self) -> float:
        """Share of the deciding rows of class 0 that are above it; NaN where there are none."""
        return self.flagged / self.negatives if self.negatives else math.nan


def choose(rule: Mapping[str, Any], y: NDArray[Any], scores: Vector, rows: str = "") -> Threshold:
    """The threshold by a rule (`threshold` of `probes`) from labels 0/1 and scores [n].

    boundary: ½. youden: that with the largest difference of the shares of class 1 and class 0 above it
    (Youden 1950), half way to the next score below; of equal ones the highest. fpr: the lowest score of
    class 0 that at most ⌊fpr · n⌋ of them exceed; with ties there may be fewer. Without rows of both
    classes (of class 0 for fpr) the boundary.
    """
    negative, positive = np.sort(scores[y == 0]), np.sort(scores[y == 1])
    n, m = len(negative), len(positive)
    value = BOUNDARY
    if rule["rule"] == "fpr" and n:
        allowed = math.floor(rule["fpr"] * n + 1e-9)
        value = float(negative[n - 1 - allowed]) if allowed < n else -math.inf
    elif rule["rule"] == "youden" and n and m:
        at = np.unique(scores)
        cuts = np.append((at[:-1] + at[1:]) / 2, at[-1])
        found = np.searchsorted(negative, cuts, "right") / n
        missed = np.searchsorted(positive, cuts, "right") / m
        best = np.flatnonzero(found - missed == np.max(found - missed))[-1]
        value = float(cuts[best])
    else:
        return Threshold(value, "boundary", "", n, int(np.sum(negative > value)))
    return Threshold(value, rule["rule"], rows, n, int(np.sum(negative > value)))


def of_fit(rule: Mapping[str, Any], row: Mapping[str, Any]) -> Threshold:
    """The threshold of a kept fit of two classes; row: of its table, with the columns of `door`."""
    return choose(rule, *deciding(row))


def deciding(row: Mapping[str, Any]) -> tuple[NDArray[Any], Vector, str]:
    """Labels and scores of the rows of a kept fit that choose its threshold, and what they are."""
    n_train, n_validation = len(row["kept_train"]), len(row["kept_validation"])
    label = np.asarray(row["kept_label"], np.float64)
    scores = np.asarray(row["kept_scores"], np.float64)
    end = n_train + n_validation
    if n_validation:
        return label[n_train:end], scores[n_train:end], VALIDATION
    if row["kept_held_out"] is not None:
        held_out = np.asarray(row["kept_held_out"], np.float64)
        known = np.isfinite(held_out)
        if len(np.unique(label[:n_train][known])) == 2:
            return label[:n_train][known], held_out[known], HELD_OUT
    return label[end:], scores[end:], TEST
