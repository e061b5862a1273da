"""Plain definitions of the LoRA representations, one matrix at a time, float64: what the tests
compare the batched pass with."""

from __future__ import annotations

import numpy as np

EPS = 1e-8


def simple_stats(x):
    return [np.linalg.norm(x), x.mean(), x.std(ddof=1), x.max(), x.min()]


def quantiles(x, levels):
    return [np.quantile(x, q) for q in levels]


def rank_based(x):
    q = quantiles(x, [0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])
    return [*q, q[5] - q[3], q[8] - q[0]]


def moments(x):
    z = (x - x.mean()) / (x.std(ddof=1) + EPS)
    return [(z**3).mean(), (z**4).mean()]


def stats(x):
    lower_median = np.sort(x, axis=None)[(x.size - 1) // 2]
    return [x.mean(), x.std(ddof=1), lower_median, x.min(), x.max(), *moments(x)]


def sigmas(x, k=10):
    s = np.linalg.svd(x, compute_uv=False)
    return np.pad(s, (0, max(0, k - len(s))))


def spectral(x):
    s = sigmas(x)[:10]
    n = s / (s.sum() + EPS)
    gaps = (s[:-1] - s[1:]) / (s[:-1] + EPS)
    entropy = -(n * np.log(n + EPS)).sum()
    return [*s, *n, *gaps, entropy, s[0] / (s[9] + EPS), s.sum()]


def matrix_norms(x):
    s, frobenius = sigmas(x), np.linalg.norm(x)
    columns, rows = np.abs(x).sum(axis=0).max(), np.abs(x).sum(axis=1).max()
    ratios = [s.sum() / (frobenius + EPS), s[0] / (frobenius + EPS)]
    return [frobenius, s.sum(), s[0], columns, rows, *ratios]


def distribution(x):
    q = quantiles(x, [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95])
    mad = np.abs(x - x.mean()).mean()
    return [*q, q[4] - q[2], mad, x.std(ddof=1) / (abs(x.mean()) + EPS), *moments(x)]


def frequency(x):
    g = np.abs(np.fft.fft2(x)).ravel()
    top = np.pad(np.sort(g)[::-1][:10], (0, max(0, 10 - g.size)))
    return [*top, g.mean(), g.std(), g.max(), (top**2).sum() / ((g**2).sum() + EPS)]


def info_theoretic(x):
    counts = np.histogram(x, bins=50, range=(x.min(), x.max()))[0]
    p = counts / (counts.sum() + EPS)
    entropy = -(p * np.log(p + EPS)).sum()
    return [entropy, entropy / np.log(50)]


FACTOR = {
    "simple_stats": simple_stats,
    "rank_based": rank_based,
    "stats": stats,
    "spectral": spectral,
    "matrix_norms": matrix_norms,
    "distribution": distribution,
    "frequency": frequency,
    "info_theoretic": info_theoretic,
}


def product(w):
    """The product family of a dense W."""
    s = np.linalg.svd(w, compute_uv=False)
    p = s[s > 1e-9 * s[0]] / s.sum()
    z = (w - w.mean()) / w.std()
    levels = [0.05, 0.25, 0.50, 0.75, 0.95]
    norms = []
    for axis in (1, 0):
        n = np.linalg.norm(w, axis=axis)
        norms += [*np.quantile(n, levels), n.max()]
    return [
        *sigmas(w, 16)[:16], s.sum(), np.linalg.norm(w),
        (w**2).sum() / s[0] ** 2, np.exp(-(p * np.log(p)).sum()),
        w.mean(), w.std(), (z**3).mean(), (z**4).mean(), *norms,
    ]  # fmt: skip


def projectors(w, rank, left, right):
    """Upper triangles of RᵀUUᵀR and RᵀVVᵀR of a dense W of this rank."""
    u, _, vt = np.linalg.svd(w)
    found = []
    for vectors, r in ((u[:, :rank], left), (vt[:rank].T, right)):
        z = r.T @ vectors
        found.append((z @ z.T)[np.triu_indices(r.shape[1])])
    return found
