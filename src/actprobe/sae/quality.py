"""How well latents reconstruct their input, on a sample of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from actprobe.sae.architectures import normalisation
from actprobe.sae.assemble import Window
from actprobe.sae.weights import Matrix, Weights

SAMPLE = 32  # rows of a dataset that are reconstructed
_LATENTS = 1024  # decoder rows read at a time


def sample(n: int) -> NDArray[np.int64]:
    """Up to SAMPLE of n rows, evenly spaced, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).round().astype(np.int64))


def pick(w: Window, rows: NDArray[np.int64], d_sae: int) -> csr_array:
    """The latents of those of the rows (ascending) that are in the window, CSR."""
    ends = np.concatenate([[0], np.cumsum(w.lengths)])
    own = rows[(rows >= w.first) & (rows < w.first + len(w.lengths))] - w.first
    return csr_array((w.values, w.latents, ends), (len(w.lengths), d_sae))[own]


def explained(
    z: Sequence[csr_array],
    x: Sequence[NDArray[np.float32]],
    weights: Weights,
    norms: NDArray[np.float32] | None,
) -> list[float | None]:
    """Share of variance explained for each of several datasets, in one pass over W_dec.

    z: latents [n, F] of sampled rows of a dataset, x: their activations [n, d_in]; norms: by which
    latents were multiplied (rescaled or folded), or None.
    """
    rows = np.concatenate(x)
    x_hat = reconstruct(vstack(z, format="csr"), rows, weights, norms)
    ends = np.cumsum([len(part) for part in x])[:-1]
    return [
        variance_explained(part, hat) for part, hat in zip(x, np.split(x_hat, ends), strict=True)
    ]


def reconstruct(
    z: csr_array, x: NDArray[np.float32], weights: Weights, norms: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """The input that latents z [n, F] stand for, float64 [n, d_in].

    x: the activations that were encoded (run-time normalisation is undone with them). Only the
    decoder rows of active latents are read where they are stored as rows; otherwise W_dec is read
    through once.
    """
    sae = weights.sae
    values = z.data.astype(np.float64)
    if norms is not None:
        values /= norms[z.indices]
    active, place = np.unique(z.indices, return_inverse=True)
    compact = csr_array((values, place, z.indptr), (z.shape[0], len(active)))
    out = _decode(compact, active, weights.decoder) / sae.input_scale
    out += weights.vector("b_dec").astype(np.float64) * sae.bias_scale
    center, scale = normalisation(x, sae)
    if sae.normalize == "layer_norm":
        scale = scale - np.float32(1e-5)  # the way back is without the epsilon, as in SAELens
    return out * scale + center


def _decode(z: csr_array, latents: NDArray, decoder: Matrix) -> NDArray[np.float64]:
    """z [n, m] times the decoder rows of m latents, float64 [n, d]."""
    if not decoder.latents_first:
        return np.stack([z @ line[latents] for line in decoder.lines()], axis=1)
    out = np.zeros((z.shape[0], decoder.d))
    columns = z.tocsc()
    for low in range(0, len(latents), _LATENTS):
        part = slice(low, low + _LATENTS)
        out += columns[:, part] @ decoder.rows(latents[part]).astype(np.float64)
    return out


def variance_explained(x: NDArray[np.float32], x_hat: NDArray[np.float64]) -> float | None:
    """1 - sum |x - x_hat|² / sum |x - mean x|², over rows; None when the rows are all equal.

    Six significant digits.
    """
    wide = x.astype(np.float64)
    total = np.sum((wide - wide.mean(axis=0)) ** 2)
    if not total > 0:
        return None
    return float(f"{1 - np.sum((wide - x_hat) ** 2) / total:.6g}")
