"""SAE latents for k-sparse probes: rank them on train rows, make only the best columns dense."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["a", "b"]


def rank(latents: Any, y: NDArray[Any], rule: Rule, top: int) -> NDArray[np.int64]:
    """The `top` latents that tell the classes apart best, best first; fewer when fewer fire.

    latents: scipy CSR array [n, F] of the train rows; y: 0/1 labels [n], both classes present.
    Rule a: |mean over positives - mean over negatives|. Rule b: the same after division by the
    latent's mean absolute value over the rows where it is non-zero (with 1e-6 added to the count
    and to the mean). Sums in float64; equal scores: the lower latent first. Kantamneni et al.
    2025 (arXiv 2502.16681), section 2, and sae-probes 0.4.2.

    A latent that never fires on the train rows has score zero and would get a zero weight: it is
    left out, which changes no probe.
    """
    fired, column = np.unique(latents.indices, return_inverse=True)
    value = latents.data.astype(np.float64)
    positive = np.repeat(y == 1, np.diff(latents.indptr))
    n_positive = int(np.sum(y == 1))
    mean_positive = np.bincount(column, value * positive, len(fired)) / n_positive
    mean_negative = np.bincount(column, value * ~positive, len(fired)) / (len(y) - n_positive)
    score = np.abs(mean_positive - mean_negative)
    if rule == "b":
        nonzero = np.bincount(column, value != 0, len(fired))
        score /= np.bincount(column, np.abs(value), len(fired)) / (nonzero + 1e-6) + 1e-6
    return fired[np.argsort(-score, kind="stable")[:top]]


def dense(latents: Any, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Float64 [len(rows), len(columns)] of a scipy CSR array, columns in the given order."""
    order = np.argsort(columns)
    place = np.full(len(columns) + 1, -1)
    picked = latents[rows]
    at = np.searchsorted(columns[order], picked.indices)
    at[at == len(columns)] = 0
    hit = columns[order][at] == picked.indices if len(columns) else np.zeros(0, bool)
    place[: len(columns)] = order
    row = np.repeat(np.arange(len(rows)), np.diff(picked.indptr))
    out = np.zeros((len(rows), len(columns)))
    out[row[hit], place[at[hit]]] = picked.data[hit]
    return out
