"""Magnitudes of the two-dimensional Fourier transform of a factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from actprobe.lora.catalog import LARGEST

EPS = 1e-8


def compute(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fourier family of m matrices (a matrix and its transpose give the same).

    x: [m, a, b]. Returns [m, 13]: the ten largest |FFT2| of all a·b coefficients (padded with 0),
    their mean and standard deviation (ddof 0), and the ten largest's share of the energy.
    Coefficients of a real matrix come in conjugate pairs, so only half of them is computed.
    """
    m, a, b = x.shape
    g = fft.rfft2(x) if a > 1 else fft.rfft(x)
    power = g.real**2 + g.imag**2
    own = [0, b // 2] if b % 2 == 0 and b > 1 else [0]  # columns that hold their own conjugates
    single = power[:, :, own].reshape(m, -1)
    paired = power[:, :, 1 : (b + 1) // 2].reshape(m, -1)
    magnitudes = [np.sqrt(p).sum(1, np.float64) for p in (single, paired)]
    energy = single.sum(1, np.float64) + 2 * paired.sum(1, np.float64)
    mean = (magnitudes[0] + 2 * magnitudes[1]) / (a * b)
    std = np.sqrt(np.maximum(energy / (a * b) - mean**2, 0))
    top = np.concatenate(
        [_largest(single, LARGEST), np.repeat(_largest(paired, LARGEST // 2), 2, axis=1)], axis=1
    )
    top = -np.sort(-top, axis=1)[:, :LARGEST].astype(np.float64)
    share = top.sum(axis=1) / (energy + EPS)
    return np.column_stack([np.sqrt(top), mean, std, share]).astype(np.float32)


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The k largest entries of each row, in any order, zeros where there are fewer."""
    m, n = values.shape
    if n <= k:
        return np.concatenate([values, np.zeros((m, k - n), values.dtype)], axis=1)
    return np.partition(values, n - k, axis=1)[:, n - k :]
