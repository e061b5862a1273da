"""A direction tried: its null bands, what else could explain its score, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes import data, door, projections
from actprobe.probes.controls import bands, nulls
from actprobe.probes.controls.nulls import FEWEST
from actprobe.probes.data import Labels
from actprobe.probes.fits import Fits
from actprobe.probes.methods.directions import Direction
from actprobe.probes.metrics.binary import aucs
from actprobe.probes.search import Fitted

_SCORED = 1 << 27  # bytes of scores of null directions in memory
_CORRELATED = 0.5  # |correlation of a score with 1/length| from which length may explain it
_DOMINANT = 0.5  # share of rows whose first token is extreme from which it dominates
_NONE = dict.fromkeys(("null_permuted_low", "null_permuted_high", "p_permuted"), np.nan)

Vector = NDArray[np.float64]


def beside(fits: Fits, fitted: Fitted, score: float, how: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of `controls` and of `door` of one fit; none where it is no direction.

    score: its AUC on the test rows; how: `controls` of the protocol.
    """
    found = fitted.model
    if not isinstance(found, Direction):
        return {}
    train = replace(fits.source.labels.at(fits.train), y=fits.y_train)
    test = fits.other.labels.at(fits.test)
    y = test.y
    null = {"random": bands.random_directions(found.space.d, how["random"], fits.seed)}
    made, orders = nulls.labels(train.y, train.pair, train.component, how["permuted"], fits.seed)
    rows = nulls.principal(found.space)
    null["permuted"], converged = nulls.units(fits.method["along"], rows, made, found.C)
    scored = {kind: _aucs(y, fits.X_test, units) for kind, units in null.items()}
    row: dict[str, Any] = {
        "positive": (test if train.answers else train).classes[1],
        "norm": found.norm,
        "train_score": found.train_score,
        "val_d": found.val_d,
    }
    for kind, values in scored.items():
        low, high = bands.band(values)
        row |= {f"null_{kind}_low": low, f"null_{kind}_high": high}
        row[f"p_{kind}"] = bands.p_value(values, score)
    if orders < FEWEST:
        row |= _NONE
    told = projections.statistics(fits.other.path, found.unit)
    values, n_tokens = told.values[test.row], told.n_tokens[test.row]
    row["length_corr"] = bands.length_correlation(
        values[:, 0], _length(n_tokens, fits.other.texts, test)
    )
    first = told.first_extreme[test.row]
    several = first[~np.isnan(first)]
    row["first_token"] = float(several.mean()) if len(several) else np.nan
    other = fits.source.compare
    if other is not None:
        row["cos_compare"] = float(found.unit @ other)
        left = bands.without(found.unit[None], other)
        row["auc_without_compare"] = float(_aucs(y, fits.X_test, left)[0])
    row["warning"] = warning(row, found.converged, orders, converged)
    return row | door.keep(
        {
            "direction": found.vector,
            "mean_positive": found.mean_positive,
            "mean_negative": found.mean_negative,
            "statistics": values,
            "row": test.row,
            "y": y.astype(np.uint8),
            "n_tokens": n_tokens,
            **{f"null_{kind}": of for kind, of in scored.items()},
        }
    )


def _aucs(y: NDArray[Any], x: NDArray[Any], units: NDArray[np.float64]) -> Vector:
    """AUCs [k] along unit directions [k, d], as many at a time as `_SCORED` bytes of scores allow."""
    parts = np.array_split(units, max(1, -(-8 * len(units) * len(y) // _SCORED)))
    return np.concatenate([aucs(y, part @ x.T) for part in parts])


def _length(n_tokens: NDArray[np.int32], texts: str, test: Labels) -> NDArray[Any]:
    """Tokens of each test row, or characters where an imported cache does not tell tokens."""
    if (n_tokens > 0).all():
        return n_tokens
    return np.array([max(len(text), 1) for text in data.texts(texts)[test.row]])


def warning(row: Mapping[str, float], converged: bool, orders: float, null_converged: bool) -> str:
    """What speaks against taking an AUC at its face value; "" for nothing.

    orders: of the training labels that keep pairs and groups.
    """
    found = []
    if row["norm"] == 0:
        found.append("no direction: both classes have the same mean")
    if abs(row["length_corr"]) > _CORRELATED:
        found.append(f"scores follow 1/length (r = {row['length_corr']:.2f})")
    if row["first_token"] > _DOMINANT:
        found.append(f"the first token is extreme in {row['first_token']:.0%} of the rows")
    if not converged:
        found.append("the solver stopped early")
    if orders < FEWEST:
        found.append(
            f"no null band: pairs and groups leave {round(orders)} orders of the training labels, "
            f"{FEWEST} are needed"
        )
    if not null_converged:
        found.append("not every fit of the null converged")
    return "; ".join(found)
