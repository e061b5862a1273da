"""Kept fits of two classes, two and two on the same test rows: AUC, what they find at one false-positive
rate, and which rows the one flags and the other does not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actprobe.cache import store
from actprobe.probes import alarms, metrics, paired, thresholds
from actprobe.probes.elsewhere import TEXTS
from actprobe.probes.kinds import BINARY
from actprobe.results.alarms import rate_of
from actprobe.results.rows import Collections, kept
from actprobe.results.tables import method_rank
from actprobe.results.views import CONTROL

PLACE, BASELINE = "method", "text baseline"  # what a fit stands against
_ROWS = ("dataset", "label", "protocol", "setting", "condition", "seed")
_PROBE = ("source", "method", "k", "key")
COLUMNS = [
    "experiment", *_ROWS, "against", *_PROBE[:3], *(f"reference_{c}" for c in _PROBE[:3]),
    "negatives", "positives", "clusters", "auc", "reference_auc", "auc_delta", "auc_low", "auc_high",
    "auc_p", "allowed", "tpr", "reference_tpr", "tpr_delta", "tpr_low", "tpr_high", "tpr_p",
    "found_alone", "reference_found_alone", "found_p", "alarms_alone", "reference_alarms_alone",
    "alarms_p", "key", "reference_key",
]  # fmt: skip
TEXT = ("experiment", *_ROWS[:-1], "against", "source", "method", "reference_source",
        "reference_method", "key", "reference_key")  # fmt: skip


@dataclass(frozen=True)
class _Fit:
    """A kept fit on its test rows: 0/1 labels and scores [n].

    threshold: None where the test rows themselves chose it.
    """

    of: Mapping[str, Any]
    place: tuple[str, ...]
    validation: float
    y: NDArray[Any]
    scores: NDArray[np.float64]
    allowed: float
    threshold: float | None


def table(
    fits: Mapping[str, Mapping[str, Any]], collections: Collections, experiment: str
) -> pd.DataFrame:
    """Columns `COLUMNS`: of the kept fits of two classes of a dataset, each against two others.

    fits: path -> rule of the threshold. against "method": the first method, in the usual order, of the
    place that the fit reads (model, site, position); against "text baseline": the method that reads the
    texts alone and has the best validation score. Controls stand against none. Fits are compared where
    they were tested on the same rows; those of LoRAs are in comparisons.csv. The columns are told in
    docs/tables.md.
    """
    of_texts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in fits:
        spec = store.read_header(path)["spec"]
        if "texts" in spec:
            of_texts[spec["texts"], spec.get("test_texts", spec["texts"])].append(path)
    found = [
        {"experiment": experiment, **row}
        for paths in of_texts.values()
        for row in _of_dataset({p: fits[p] for p in paths}, collections)
    ]
    made = pd.DataFrame(found, columns=COLUMNS)
    return made.sort_values(
        [*_ROWS, "against", *_PROBE[:3]], kind="stable", na_position="first", ignore_index=True
    )


def _of_dataset(
    fits: Mapping[str, Mapping[str, Any]], collections: Collections
) -> Iterator[dict[str, Any]]:
    same: dict[Any, list[_Fit]] = defaultdict(list)
    together: dict[Any, NDArray[Any]] = {}
    for path, rule in fits.items():
        for header, row in kept(path):
            if row["kind"] != BINARY or row["reason"]:
                continue
            fit, at = _read(row, rule)
            where = (*(fit.of[c] for c in _ROWS), at.tobytes(), fit.y.tobytes())
            same[where].append(fit)
            if where not in together:
                together[where] = collections.components(header, row)[at]
    for where, there in same.items():
        pairs = list(_pairs(there))
        if pairs:
            yield from _compared(pairs, together[where])


def _read(row: Mapping[str, Any], rule: Mapping[str, Any]) -> tuple[_Fit, NDArray[np.int64]]:
    """A fit, and the places of its test rows in their collection."""
    allowed = rate_of(rule)
    chosen = thresholds.of_fit({"rule": "fpr", "fpr": allowed}, row)
    first = len(row["kept_train"]) + len(row["kept_validation"])
    fit = _Fit(
        {c: row.get(c) for c in (*_ROWS, *_PROBE)},
        tuple(row.get(c) or "" for c in ("model", "site", "position")),
        row["val_score"] if row["val_score"] is not None else math.nan,
        np.asarray(row["kept_label"][first:], np.int64),
        np.asarray(row["kept_scores"][first:], np.float64),
        allowed,
        None if chosen.rows == thresholds.TEST else chosen.value,
    )
    return fit, np.asarray(row["kept_test"], np.int64)


def _pairs(fits: Iterable[_Fit]) -> Iterator[tuple[str, _Fit, _Fit]]:
    """against, fit and reference."""
    candidates = [f for f in fits if not f.of["method"].startswith(CONTROL)]
    texts = [f for f in candidates if f.of["source"] == TEXTS]
    read = [f for f in candidates if f.of["source"] != TEXTS]
    for place in dict.fromkeys(f.place for f in read):
        there = [f for f in read if f.place == place]
        dense = [f for f in there if f.of["k"] is None]
        if dense:
            first = min(dense, key=lambda f: (method_rank(f.of["method"]), f.of["source"]))
            yield from ((PLACE, f, first) for f in there if f is not first)
    if texts:
        best = max(texts, key=lambda f: np.nan_to_num(f.validation, nan=-np.inf))
        yield from ((BASELINE, f, best) for f in read)


def _compared(
    pairs: list[tuple[str, _Fit, _Fit]], component: NDArray[Any]
) -> Iterator[dict[str, Any]]:
    y = pairs[0][1].y
    if not 0 < y.sum() < len(y):
        return
    draws = paired.resampled(y, component)
    drawn: dict[tuple[int, float], NDArray[np.float64]] = {}

    def found(fit: _Fit, rate: float) -> NDArray[np.float64]:
        if (id(fit), rate) not in drawn:
            drawn[id(fit), rate] = paired.found_at(draws, fit.scores, rate)
        return drawn[id(fit), rate]

    clusters = len(np.unique(component))
    counts = {"negatives": int(np.sum(y == 0)), "positives": int(np.sum(y)), "clusters": clusters}
    for against, fit, other in pairs:
        if not (np.isfinite(fit.scores).all() and np.isfinite(other.scores).all()):
            continue
        rate = fit.allowed
        tpr = [alarms.tpr_at_fpr(y, f.scores, rate) for f in (fit, other)]
        gap = paired.bootstrapped(tpr[0] - tpr[1], found(fit, rate), found(other, rate))
        auc = paired.delong(y, fit.scores, other.scores, component)
        yield {
            **{c: fit.of[c] for c in (*_ROWS, *_PROBE)},
            **{f"reference_{c}": other.of[c] for c in _PROBE},
            **counts,
            "against": against,
            "auc": metrics.main(BINARY, y, fit.scores),
            "reference_auc": metrics.main(BINARY, y, other.scores),
            **_named("auc", auc),
            "allowed": rate,
            "tpr": tpr[0],
            "reference_tpr": tpr[1],
            **_named("tpr", gap),
            **_flagged(fit, other),
        }


def _named(of: str, found: paired.Difference) -> dict[str, float]:
    told = asdict(found)
    return {f"{of}_delta": told.pop("value")} | {f"{of}_{name}": v for name, v in told.items()}


def _flagged(fit: _Fit, other: _Fit) -> dict[str, Any]:
    """McNemar's counts and p for both classes; nothing where the test rows chose a threshold."""
    if fit.threshold is None or other.threshold is None:
        return {}
    first, second = fit.scores > fit.threshold, other.scores > other.threshold
    told: dict[str, Any] = {}
    for name, of in (("found", fit.y == 1), ("alarms", fit.y == 0)):
        alone, reference, p = paired.mcnemar(first[of], second[of])
        told |= {f"{name}_alone": alone, f"reference_{name}_alone": reference, f"{name}_p": p}
    return told
