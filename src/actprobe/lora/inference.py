"""Intervals and selections of LoRA probes. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share of n (Wilson 1927); exactly 0 and 1 where the share is."""
    z = stats.norm.ppf(0.5 + level / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half if share > 0 else 0.0, centre + half if share < 1 else 1.0


def interval(values: np.ndarray, ratio: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean accuracy of some runs whose splits share rows; NaN below two.

    ratio: test over training rows. Student's t with the variance of the mean taken as
    (1/runs + ratio)·s²: runs over the same rows are not independent (Nadeau and Bengio 2003,
    corrected resampled t-test).
    """
    if len(values) < 2:
        return np.nan, np.nan
    error = values.std(ddof=1) * np.sqrt(1 / len(values) + ratio)
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * error
    return max(0.0, values.mean() - half), min(1.0, values.mean() + half)


def simultaneous(share: float, n_test: int, looks: int) -> tuple[float, float]:
    """95 % interval of one of several mean accuracies that are looked at together.

    The score interval of as many rows as one run tests, at the level 1 - 0.05/looks (Bonferroni):
    the mean over runs varies no more than a run. Student's t with few runs is useless so far out.
    """
    return wilson(share, n_test, 1 - 0.05 / max(looks, 1))


def chosen(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The row with the best validation accuracy of every seed, in each group of `by`; ties: the first.

    The rows that a run validates on are rows that other runs test: to choose by the mean over runs
    is to choose by test rows, too. Within one run they are none.
    """
    fits = runs[runs["val_acc"].notna()]
    best = fits.groupby([*by, "seed"], sort=False)["val_acc"].idxmax()
    return fits.loc[best]
