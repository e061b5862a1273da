"""Representations as views: numbers per unit from the primitives of a shard. Arrays in, arrays out.

The nine factor representations follow weightspace-lora-for-diffusion; z, skew, kurt and the
histogram are those of `families/order.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import FAMILIES, LARGEST, QUANTILES, SIGMAS

EPS = 1e-8
Floats = NDArray[np.float32]

_Q = [f".{round(q * 100):02d}" for q in QUANTILES]
_PICKS = {
    "simple_stats": ("order", ("frobenius", "mean", "std", "max", "min")),
    "stats": ("order", ("mean", "std", "lower_median", "min", "max", "skew", "kurt")),
    "singular_values": (
        "product",
        (*(f"sigma{i + 1}" for i in range(SIGMAS)), "nuclear", "stable_rank", "effective_rank"),
    ),
    "product_norms": (
        "product",
        ("frobenius", *(c for c in FAMILIES["product"].columns if "_norm_" in c)),
    ),
    "product_moments": ("product", ("mean", "std", "skew", "kurt")),
    "norm_only": ("product", ("frobenius",)),
}
_SPECTRAL = (
    *(f"sigma{i + 1}" for i in range(LARGEST)),
    *(f"share{i + 1}" for i in range(LARGEST)),
    *(f"gap{i + 1}" for i in range(LARGEST - 1)),
    "entropy",
    "condition",
    "sum",
)


def view(
    name: str, x: Mapping[str, Floats], columns: Mapping[str, tuple[str, ...]]
) -> tuple[Floats, tuple[str, ...]]:
    """A representation [n, units, p] and its column names, from primitives.

    x: family -> [n, units, columns]; columns: their names.
    """
    if name in _PICKS:
        family, chosen = _PICKS[name]
        return x[family][..., [columns[family].index(c) for c in chosen]], chosen
    if name in ("product_sketch", "left_projector", "right_projector"):
        first = {"product_sketch": "w", "left_projector": "left", "right_projector": "right"}[name]
        at = [i for i, c in enumerate(columns["sketch"]) if c.rstrip("0123456789_") == first]
        return x["sketch"][..., at], tuple(columns["sketch"][i] for i in at)
    found = _DERIVED[name](_Columns(x, columns))
    values = np.stack(np.broadcast_arrays(*found.values()), axis=-1)
    return values.astype(np.float32), tuple(found)


class _Columns:
    """Columns of the primitives by name, in float64."""

    def __init__(self, x: Mapping[str, Floats], columns: Mapping[str, tuple[str, ...]]):
        self._x, self._columns = x, columns

    def __call__(self, family: str, name: str) -> NDArray[np.float64]:
        return self._x[family][..., self._columns[family].index(name)].astype(np.float64)


def _rank_based(c: _Columns) -> dict[str, NDArray[Any]]:
    q = {n: c("order", n) for n in _Q}
    return q | {"iqr": q[".75"] - q[".25"], "range98": q[".99"] - q[".01"]}


def _distribution(c: _Columns) -> dict[str, NDArray[Any]]:
    q = {n: c("order", n) for n in _Q if n not in (".01", ".99")}
    spread = c("order", "std") / (np.abs(c("order", "mean")) + EPS)
    return q | {
        "iqr": q[".75"] - q[".25"],
        "mad": c("order", "mad"),
        "variation": spread,
        "skew": c("order", "skew"),
        "kurt": c("order", "kurt"),
    }


def _spectral(c: _Columns) -> dict[str, NDArray[Any]]:
    sigma = np.stack([c("spectral", f"sigma{i + 1}") for i in range(LARGEST)])
    total = sigma.sum(axis=0)
    share = sigma / (total + EPS)
    gap = (sigma[:-1] - sigma[1:]) / (sigma[:-1] + EPS)
    entropy = -(share * np.log(share + EPS)).sum(axis=0)
    values = [*sigma, *share, *gap, entropy, sigma[0] / (sigma[-1] + EPS), total]
    return dict(zip(_SPECTRAL, values, strict=True))


def _matrix_norms(c: _Columns) -> dict[str, NDArray[Any]]:
    frobenius, nuclear = c("order", "frobenius"), c("spectral", "nuclear")
    largest = c("spectral", "sigma1")
    return {
        "frobenius": frobenius,
        "nuclear": nuclear,
        "spectral": largest,
        "max_col_sum": c("spectral", "max_col_sum"),
        "max_row_sum": c("spectral", "max_row_sum"),
        "nuclear_ratio": nuclear / (frobenius + EPS),
        "spectral_ratio": largest / (frobenius + EPS),
    }


def _frequency(c: _Columns) -> dict[str, NDArray[Any]]:
    top = {f"magnitude{i + 1}": c("fourier", f"magnitude{i + 1}") for i in range(LARGEST)}
    return top | {
        "mean": c("fourier", "mean"),
        "std": c("fourier", "std"),
        "max": top["magnitude1"],
        "energy_share": c("fourier", "energy_share"),
    }


def _info_theoretic(c: _Columns) -> dict[str, NDArray[Any]]:
    entropy = c("order", "entropy")
    return {"entropy": entropy, "relative_entropy": entropy / np.log(50)}


_DERIVED = {
    "rank_based": _rank_based,
    "distribution": _distribution,
    "spectral": _spectral,
    "matrix_norms": _matrix_norms,
    "frequency": _frequency,
    "info_theoretic": _info_theoretic,
}
