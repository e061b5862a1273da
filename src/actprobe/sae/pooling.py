"""One row per text from the codes of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.sae.latents import Latents

Pool = Literal["max", "mean"]

_ENTRIES = 1 << 22  # codes in memory at a time


def open_pooled(path: str | Path, pool: Pool, most: int) -> Latents:
    """Per text and latent the largest or the mean code of its last `most` tokens, [N, F].

    A token on which a latent does not fire counts as zero. Reads a latents artefact whose rows are
    tokens, a few texts at a time. Kantamneni et al. 2025 (arXiv 2502.16681), multi-token SAE probes.
    Raises BadInput with the stored reason for a dataset that cannot be used, and for an artefact
    whose rows are not tokens.
    """
    data, indices, lengths = [], [], []
    with store.open_h5(path) as f:
        if "offsets" not in f:
            raise BadInput(f"{path}: its rows are not tokens")
        offsets, indptr = f["offsets"][:], f["indptr"][:]
        n, d_sae = len(offsets) - 1, int(f["shape"][1])
        first = np.maximum(offsets[:-1], offsets[1:] - most)  # of each text
        tokens = offsets[1:] - first
        ends = indptr[offsets]
        low = 0
        while low < n:
            high = max(int(np.searchsorted(ends, ends[low] + _ENTRIES, "right")) - 1, low + 1)
            at = slice(ends[low], ends[high])
            token = np.repeat(
                np.arange(offsets[low], offsets[high]),
                np.diff(indptr[offsets[low] : offsets[high] + 1]),
            )
            text = np.searchsorted(offsets, token, "right") - 1
            kept = token >= first[text]
            cell = (text[kept] - low) * d_sae + f["indices"][at][kept]
            cell, value = _reduced(cell, f["data"][at][kept], pool, tokens[low:high], d_sae)
            data.append(value)
            indices.append((cell % d_sae).astype(np.int32))
            lengths.append(np.bincount(cell // d_sae, minlength=high - low))
            low = high
    empty = np.zeros(0, np.int64)
    return Latents(
        np.concatenate([np.zeros(0, np.float32), *data]),
        np.concatenate([np.zeros(0, np.int32), *indices]),
        np.concatenate([[0], np.cumsum(np.concatenate([empty, *lengths]))]),
        (n, d_sae),
    )


def _reduced(
    cell: NDArray[np.int64],
    value: NDArray[np.float32],
    pool: Pool,
    tokens: NDArray[np.int64],
    d_sae: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pooled values that are not zero, by ascending cell (text · d_sae + latent)."""
    order = np.argsort(cell, kind="stable")
    cell, start = np.unique(cell[order], return_index=True)
    if not len(cell):
        return cell, value
    sorted_values = value[order].astype(np.float64)
    if pool == "mean":
        pooled = np.add.reduceat(sorted_values, start) / tokens[cell // d_sae]
    else:
        pooled = np.maximum.reduceat(sorted_values, start)
        fired = np.diff(np.append(start, len(order)))
        silent = fired < tokens[cell // d_sae]
        pooled = np.where(silent, np.maximum(pooled, 0), pooled)
    kept = pooled != 0
    return cell[kept], pooled[kept].astype(np.float32)
