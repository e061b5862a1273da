"""Which latents tell classes apart best: the choice of columns for a k-sparse probe."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actprobe.sae.latents import ClassSums, Latents

Rule = Literal["a", "b", "fisher"]


def rank(
    latents: Latents, rows: ArrayLike | None, y: ArrayLike, rule: Rule, k: int
) -> NDArray[np.int64]:
    """The k best latents for telling the classes y = 0, 1, … of rows apart, best first, int64.

    Equals a stable descending sort of the dense scores: equal scores go to the lower latent, and
    where fewer than k latents have a score, the lowest of the others follow. Kantamneni et al.
    2025 (arXiv 2502.16681), section 2.
    """
    sums = latents.class_sums(rows, y)
    score = scores(sums, rule)
    positive = np.flatnonzero(score > 0)
    if len(positive) > k:
        edge = -np.partition(-score[positive], k - 1)[k - 1]
        positive = positive[score[positive] >= edge]
    best = positive[np.argsort(-score[positive], kind="stable")][:k]
    chosen = sums.latents[best]
    missing = min(k, latents.shape[1]) - len(chosen)
    if missing <= 0:
        return chosen
    others = np.setdiff1d(np.arange(min(latents.shape[1], k + len(chosen))), chosen)
    return np.concatenate([chosen, others[:missing]])


def scores(sums: ClassSums, rule: Rule) -> NDArray[np.float64]:
    """Score of each latent in `sums`, float64 [m].

    Rule a: |mean over class 1 - mean over class 0|. Rule b: the same after dividing the latent by
    S / (nonzero + 1e-6) + 1e-6, with S its sum of magnitudes: its mean where it fires
    (sae-probes 0.4.2). Rule fisher, for any number of classes: the ratio of the variance between
    classes to that within them (Fisher's F, one-way analysis of variance). Raises ValueError unless
    every class has rows, of rules a and b unless there are two.
    """
    if rule == "fisher" and sums.n.all():
        return _fisher(sums)
    if len(sums.n) != 2 or not sums.n.all():
        raise ValueError(f"ranking needs rows of classes 0 and 1, found {sums.n.tolist()}")
    mean = sums.total / sums.n[:, None]
    score: NDArray[np.float64] = np.abs(mean[1] - mean[0])
    if rule == "b":
        score /= sums.magnitude / (sums.nonzero.sum(axis=0) + 1e-6) + 1e-6
    return score


def _fisher(sums: ClassSums) -> NDArray[np.float64]:
    n, k = int(sums.n.sum()), len(sums.n)
    whole = sums.total.sum(axis=0)
    explained = (sums.total**2 / sums.n[:, None]).sum(axis=0)
    between = explained - whole**2 / n
    within = np.maximum(sums.squares - explained, 1e-12 * sums.squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (between / max(k - 1, 1)) / (within / max(n - k, 1))
    return np.where(between > 1e-12 * sums.squares, found, 0.0)
