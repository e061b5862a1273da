"""False alarms of kept fits of two classes at a stated false-positive rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from actprobe.probes import alarms, thresholds
from actprobe.probes.kinds import BINARY
from actprobe.results.rows import kept

RATE = 0.01  # where the threshold of an entry states none
_OF_FIT = ("dataset", "label", "source", "protocol", "setting", "condition", "method", "k", "seed")
COLUMNS = [
    "experiment", *_OF_FIT, "allowed", "threshold", "decided_by", "negatives", "flagged", "true_low",
    "true_high", "test_negatives", "false_alarms", "fpr", "fpr_low", "fpr_high", "test_positives",
    "found", "tpr", "tpr_low", "tpr_high", "key",
]  # fmt: skip
TEXT = ("experiment", *_OF_FIT[:-2], "decided_by", "key")


def rate_of(rule: Mapping[str, Any]) -> float:
    """The false-positive rate that a rule of a threshold states, or `RATE`."""
    return float(rule["fpr"]) if rule["rule"] == "fpr" else RATE


def table(fits: Mapping[str, Mapping[str, Any]], experiment: str) -> pd.DataFrame:
    """Columns `COLUMNS`, a row for each kept fit of two classes that has a number.

    fits: path -> rule of the threshold. allowed: the false-positive rate that the rule states, else 1 %;
    threshold: the lowest that keeps to it on the rows named by decided_by, of whose `negatives` it flags
    `flagged`; between true_low and true_high lies its true rate with 95 % certainty. false_alarms of
    test_negatives, and found of test_positives: test rows above it; their shares with the intervals of
    Clopper and Pearson, which are empty where the test rows themselves decided.
    """
    found = [row for path, rule in fits.items() for row in _rows(path, rule, experiment)]
    return pd.DataFrame(found, columns=COLUMNS)


def _rows(path: str, rule: Mapping[str, Any], experiment: str) -> Iterator[dict[str, Any]]:
    for _, row in kept(path):
        if row["kind"] == BINARY and not row["reason"]:
            of_fit = {c: row.get(c) for c in _OF_FIT} | {"experiment": experiment}
            yield of_fit | {"key": row["key"]} | of(row, rule)


def of(row: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one fit; row: of its file, with the columns of `probes.door`."""
    allowed = rate_of(rule)
    chosen = thresholds.of_fit({"rule": "fpr", "fpr": allowed}, row)
    low, high = alarms.true_rate(chosen.flagged, chosen.negatives)
    first = len(row["kept_train"]) + len(row["kept_validation"])
    y, above = np.array(row["kept_label"][first:]), np.array(row["kept_scores"][first:])
    above = above > chosen.value
    own = chosen.rows == thresholds.TEST
    shares = {}
    for name, of_class in (("fpr", above[y == 0]), ("tpr", above[y == 1])):
        share = alarms.share(int(of_class.sum()), len(of_class))
        ends = (math.nan, math.nan) if own else (share.low, share.high)
        shares[name] = share.k, share.n, share.value, *ends
    told = {
        "allowed": allowed,
        "threshold": chosen.value,
        "decided_by": chosen.rows,
        "negatives": chosen.negatives,
        "flagged": chosen.flagged,
        "true_low": low,
        "true_high": high,
    }
    names = ("false_alarms", "test_negatives", "fpr", "fpr_low", "fpr_high")
    told |= dict(zip(names, shares["fpr"], strict=True))
    names = ("found", "test_positives", "tpr", "tpr_low", "tpr_high")
    return told | dict(zip(names, shares["tpr"], strict=True))
