"""How well latents reconstruct their input, on a sample of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from actprobe.sae.architectures import normalisation
from actprobe.sae.assemble import Window
from actprobe.sae.weights import Matrix, Weights

SAMPLE = 32  # rows of a dataset that are reconstructed
_LATENTS = 4096  # decoder rows read at a time


def sample(n: int) -> NDArray[np.int64]:
    """Up to SAMPLE of n rows, evenly spaced, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).round().astype(np.int64))


def pick(w: Window, rows: NDArray[np.int64], d_sae: int) -> csr_array:
    """The latents of those of the rows (ascending) that are in the window, CSR."""
    ends = np.concatenate([[0], np.cumsum(w.lengths)])
    own = rows[(rows >= w.first) & (rows < w.first + len(w.lengths))] - w.first
    return csr_array((w.values, w.latents, ends), (len(w.lengths), d_sae))[own]


def reconstruct(
    z: csr_array, x: NDArray[np.float32], weights: Weights, norms: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """The input that latents z [n, F] stand for, float64 [n, d_in].

    x: the activations that were encoded (run-time normalisation is undone with them). norms: by
    which latents were multiplied (rescaled or folded), or None. Only the decoder rows of active
    latents are read where they are stored as rows; otherwise W_dec is read through once.
    """
    sae = weights.sae
    if norms is not None:
        z = csr_array((z.data / norms[z.indices], z.indices, z.indptr), z.shape)
    out = _decode(z, weights.decoder) / sae.input_scale
    out += weights.vector("b_dec").astype(np.float64) * sae.bias_scale
    center, scale = normalisation(x, sae)
    if sae.normalize == "layer_norm":
        scale = scale - np.float32(1e-5)  # the way back is without the epsilon, as in SAELens
    return out * scale + center


def _decode(z: csr_array, decoder: Matrix) -> NDArray[np.float64]:
    if not decoder.latents_first:
        return np.stack([z @ line for line in decoder.lines()], axis=1, dtype=np.float64)
    out = np.zeros((z.shape[0], decoder.d))
    active, place = np.unique(z.indices, return_inverse=True)
    compact = csr_array((z.data, place, z.indptr), (z.shape[0], len(active))).tocsc()
    for low in range(0, len(active), _LATENTS):
        part = slice(low, low + _LATENTS)
        out += compact[:, part] @ decoder.rows(active[part])
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
