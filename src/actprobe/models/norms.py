"""How large activations are, by position: whether a model has a sink where it begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from actprobe.models import extract
from actprobe.models.load import Model
from actprobe.models.positions import Reduction
from actprobe.models.tokens import Tokens

_ROWS = 16


def measure(
    model: Model,
    tokens: Tokens,
    rows: Sequence[int],
    sites: Iterable[str],
    prefix: extract.Prefix | None,
) -> dict[str, dict[str, float | None]]:
    """L2 norms at each site, from up to 16 of these rows in one batch.

    first: median over the rows' first positions; others: median over all other positions; largest:
    of those. To four digits; None where there is no such position, or not a finite number.
    """
    rows = list(rows[:_ROWS])
    every = {"norms": Reduction("norms", keep=np.ones(len(tokens.ids), bool))}
    wanted = {site: ["norms"] for site in sites}
    found = extract.forward(model, tokens, rows, every, wanted, prefix)
    lengths = tokens.lengths[rows]
    first = np.zeros(int(lengths.sum()), bool)
    first[np.cumsum(lengths) - lengths] = True
    norms = {}
    for (site, _), value in found.items():
        x = value.numpy()
        others = x[~first]
        norms[site] = {
            "first": _rounded(np.median(x[first])),
            "others": _rounded(np.median(others)) if len(others) else None,
            "largest": _rounded(others.max()) if len(others) else None,
        }
    return norms


def _rounded(x: float) -> float | None:
    return float(f"{x:.4g}") if np.isfinite(x) else None
