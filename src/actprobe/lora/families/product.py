"""Spectrum, norms and moments of W = s·B·A without forming W."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import NORM_QUANTILES
from actprobe.lora.families.order import quantiles
from actprobe.lora.families.spectral import padded
from actprobe.lora.families.weights import Array, Weights

_EXACT = 3e-7  # relative error of the standard deviation of equal entries, in float64
_BLOCK = 1 << 18  # entries of W that are formed at once where that is the cheaper way


def compute(w: Weights) -> NDArray[np.float32]:
    """Product family [m, 36], columns as in the catalog.

    Singular values (16, padded), their sum, Frobenius norm, stable rank |W|²_F/σ1² and effective
    rank exp(-Σ p ln p) with p = σ/Σσ (Roy and Vetterli 2007); mean, standard deviation (ddof 0),
    skewness and kurtosis (not excess) of the entries; quantiles and maximum of the norms of rows
    and columns. Singular values that may be rounding of the factors are 0, and so are skew and kurt
    where all entries are equal but for it.
    """
    sigma, scale = w.sigma, np.abs(w.scale)
    frobenius = np.sqrt(np.maximum((w.gram_b * w.gram_a).sum((1, 2)), 0))
    total = sigma.sum(1)
    p = _ratio(sigma, total[:, None])
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    spectrum = [
        padded(sigma),
        total,
        frobenius * scale,
        _ratio((frobenius * scale) ** 2, sigma[:, 0] ** 2),
        np.where(total > 0, np.exp(entropy), 0),
    ]
    norms = [
        _profile(rows, gram) * scale[:, None] for rows, gram in ((w.b, w.gram_a), (w.a, w.gram_b))
    ]
    return np.column_stack([*spectrum, *_moments(w, frobenius), *norms]).astype(np.float32)


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 0)


def _profile(rows: Array, gram: Array) -> Array:
    """Quantiles and maximum [m, 6] of the norms √(xᵀGx) of n vectors x: rows [m, r, n]."""
    moved = gram * rows if rows.shape[1] == 1 else gram @ rows  # 1 x 1 products are slow in BLAS
    norms = np.einsum("mrn,mrn->mn", rows, moved).astype(np.float32)
    np.sqrt(np.maximum(norms, 0, out=norms), out=norms)
    norms.sort(axis=1)
    return np.column_stack([quantiles(norms, NORM_QUANTILES), norms[:, -1]])


def _moments(w: Weights, frobenius: Array) -> list[Array]:
    """Mean, std, skew and kurt, each [m], of the entries of W."""
    rank, n_out, n_in = w.b.shape[1], w.b.shape[2], w.a.shape[2]
    n = n_out * n_in
    mean = (w.b.sum(2) * w.a.sum(2)).sum(1) / n
    second = frobenius**2 / n
    # The pair sums cost (d_out + d_in)·p² with p = r(r+1)/2, forming W costs d_out·d_in·r.
    pairs = rank * (rank + 1) // 2
    by_pairs = (n_out + n_in) * pairs**2 <= 2 * n * rank
    cubes, fourths = _power_sums(w) if by_pairs else _dense_power_sums(w)
    variance = second - mean**2
    unit = w.roundings[:, :, 0].max(1)
    variance[variance <= np.maximum(_EXACT, unit) ** 2 * second] = 0
    third = cubes / n - 3 * mean * second + 2 * mean**3
    fourth = fourths / n - 4 * mean * cubes / n + 6 * mean**2 * second - 3 * mean**4
    sign = np.sign(w.scale)
    return [
        mean * w.scale,
        np.sqrt(variance) * np.abs(w.scale),
        _ratio(third, variance**1.5) * sign,
        _ratio(fourth, variance**2) * np.abs(sign),
    ]


def _power_sums(w: Weights) -> tuple[Array, Array]:
    """Σw³ and Σw⁴ [m] from products of unordered pairs of rank-one parts.

    With P_ab = b_a∘b_b and Q_ab = a_a∘a_b for a <= b, weight 1 on the diagonal and 2 off it:
    Σw³ = Σ (P·Bᵀ)∘(Q·Aᵀ), Σw⁴ = Σ (P·Pᵀ)∘(Q·Qᵀ), summed with the weights.
    """
    first, second = np.triu_indices(w.b.shape[1])
    weight = np.where(first == second, 1.0, 2.0)
    p, q = _pairs(w.b), _pairs(w.a)
    cubes = (p @ w.b.transpose(0, 2, 1)) * (q @ w.a.transpose(0, 2, 1))
    fourths = (p @ p.transpose(0, 2, 1)) * (q @ q.transpose(0, 2, 1))
    return cubes.sum(2) @ weight, (fourths @ weight) @ weight


def _pairs(x: Array) -> Array:
    """Products x_a∘x_b for a <= b: [m, r, n] -> [m, r(r+1)/2, n]."""
    m, r, n = x.shape
    out, at = np.empty((m, r * (r + 1) // 2, n)), 0
    for a in range(r):
        np.multiply(x[:, a : a + 1], x[:, a:], out=out[:, at : at + r - a])
        at += r - a
    return out


def _dense_power_sums(w: Weights) -> tuple[Array, Array]:
    """Σw³ and Σw⁴ [m] from blocks of rows of W."""
    m, _, n_out = w.b.shape
    step = max(1, _BLOCK // w.a.shape[2])
    cubes, fourths = np.zeros(m), np.zeros(m)
    for i in range(m):
        for start in range(0, n_out, step):
            rows = w.b[i, :, start : start + step].T @ w.a[i]
            squares = (rows * rows).ravel()
            cubes[i] += squares @ rows.ravel()
            fourths[i] += squares @ squares
    return cubes, fourths
