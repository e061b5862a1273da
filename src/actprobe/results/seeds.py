"""Several runs of one fit: intervals of their mean, and what each chooses. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from actprobe.probes.intervals import LEVEL, wilson
from actprobe.results.scores import Range


def interval(
    values: NDArray[np.float64], ratio: float, within: Range = (0.0, 1.0), level: float = LEVEL
) -> tuple[float, float]:
    """Interval of the mean score of some runs whose splits share rows; NaN below two.

    ratio: test over training rows. Student's t with the variance of the mean taken as
    (1/runs + ratio)·s²: runs over the same rows are not independent (Nadeau and Bengio 2003,
    corrected resampled t-test).
    """
    if len(values) < 2:
        return np.nan, np.nan
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * _error(values, ratio)
    return max(within[0], values.mean() - half), min(within[1], values.mean() + half)


def corrected_t(differences: NDArray[np.float64], ratio: float) -> float:
    """Two-sided p that the mean difference of paired runs is zero, by the same correction; NaN below two
    runs and where all differ alike."""
    error = _error(differences, ratio) if len(differences) > 1 else 0.0
    if not error > 1e-12:
        return np.nan
    return float(2 * stats.t.sf(abs(differences.mean()) / error, len(differences) - 1))


def _error(values: NDArray[np.float64], ratio: float) -> float:
    """Standard error of the mean of runs that share rows."""
    return float(values.std(ddof=1) * np.sqrt(1 / len(values) + ratio))


def simultaneous(share: float, n_test: int, looks: int) -> tuple[float, float]:
    """95 % interval of one of several mean accuracies that are looked at together.

    The score interval of as many rows as one run tests, at the level 1 - 0.05/looks (Bonferroni):
    the mean over runs varies no more than a run. Student's t with few runs is useless so far out.
    """
    return wilson(share, n_test, 1 - (1 - LEVEL) / max(looks, 1))


def chosen(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The row with the best validation score of every seed, in each group of `by`; ties: the first.

    The rows that a run validates on are rows that other runs test: to choose by the mean over runs
    is to choose by test rows, too. Within one run they are none.
    """
    fits = runs[runs["val_score"].notna()]
    best = fits.groupby([*by, "seed"], sort=False)["val_score"].idxmax()
    return fits.loc[best]
