"""Paired comparisons: the same datasets under the same conditions, or none at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from actprobe.errors import ActprobeError
from actprobe.results.select import BASELINES, BY, SLICE, TOLERANCE, arms, quiver
from actprobe.results.stats import CONFIDENCE, DRAWS, bootstrap_mean
from actprobe.results.tables import method_rank, sort_rows
from actprobe.results.views import CONTROL, baseline, control, labelled

COMPARISONS = [*SLICE, "probe", "source", "reference"]
COMPARISONS += ["n_datasets", "n_pairs", "n_unmatched", "delta", "ci_low", "ci_high"]
COMPARISONS += ["wins", "losses", "ties", "p_wilcoxon", "p_holm", "delta_unseen"]
FAMILY = ["experiment", "protocol", "setting"]


class Unmatched(ActprobeError):
    """Two result sets do not cover the same datasets and conditions."""


def matched(
    probe: pd.DataFrame,
    reference: pd.DataFrame,
    on: Sequence[str] = BY,
    value: str = "test_auc",
) -> pd.DataFrame:
    """`value` of both sides by dataset and condition: the columns of `on`, probe, reference.

    Raises Unmatched, naming examples, unless both sides have exactly one number for the same
    groups: a mean over other datasets or other conditions is another quantity.
    """
    sides = [_numbers(rows, on, value) for rows in (probe, reference)]
    for one, other, words in (
        (sides[0], sides[1], "only the probe has"),
        (sides[1], sides[0], "only the reference has"),
    ):
        alone = one.index.difference(other.index)
        if len(alone):
            examples = "; ".join(_words(on, key) for key in alone[:3])
            raise Unmatched(
                f"refusing to compare unmatched results: {words} {len(alone)} of "
                f"{len(one)} groups, for example {examples}"
            )
    return pd.DataFrame({"probe": sides[0], "reference": sides[1]}).reset_index()


def _numbers(rows: pd.DataFrame, on: Sequence[str], value: str) -> pd.Series:
    known = rows[rows[value].notna()].set_index(list(on))[value]
    twice = known.index[known.index.duplicated()]
    if len(twice):
        raise Unmatched(f"several results for one group, for example {_words(on, twice[0])}")
    return known


def _words(on: Sequence[str], key: Any) -> str:
    return ", ".join(f"{c}={v}" for c, v in zip(on, key, strict=True) if not pd.isna(v) and v != "")


def common(
    probe: pd.DataFrame, reference: pd.DataFrame, on: Sequence[str] = BY, value: str = "test_auc"
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Both sides cut down to the groups for which both have a number, and how many groups went."""
    sides = [rows[rows[value].notna()] for rows in (probe, reference)]
    keys = [pd.MultiIndex.from_frame(rows[list(on)]) for rows in sides]
    kept = [rows[key.isin(other)] for rows, key, other in zip(sides, keys, keys[::-1], strict=True)]
    return kept[0], kept[1], len(keys[0].symmetric_difference(keys[1]))


def compare(
    pairs: pd.DataFrame, confidence: float = CONFIDENCE, draws: int = DRAWS
) -> dict[str, float]:
    """What the pairs of `matched` say about probe minus reference.

    delta: mean over pairs. ci_low, ci_high: bootstrap over datasets of the mean of the datasets'
    mean deltas; a dataset's conditions share their rows and are no independent evidence.
    p_wilcoxon: two-sided signed-rank test over datasets (Wilcoxon 1945), NaN when no delta differs
    from zero. wins, losses, ties count pairs; differences within TOLERANCE are ties.
    """
    delta = pairs["probe"] - pairs["reference"]
    per_dataset = delta.groupby(pairs["dataset"]).mean()
    _, low, high = bootstrap_mean(per_dataset, confidence, draws)
    wins, losses = delta > TOLERANCE, delta < -TOLERANCE
    differs = (per_dataset.abs() > TOLERANCE).any()
    return {
        "n_datasets": len(per_dataset),
        "n_pairs": len(pairs),
        "delta": float(delta.mean()),
        "ci_low": low,
        "ci_high": high,
        "wins": int(wins.sum()),
        "losses": int(losses.sum()),
        "ties": int((~wins & ~losses).sum()),
        "p_wilcoxon": float(stats.wilcoxon(per_dataset).pvalue) if differs else np.nan,
    }


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P values [m] corrected for m comparisons (Holm 1979); NaNs stay and are not counted."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def comparison_table(
    table: pd.DataFrame, confidence: float = CONFIDENCE, draws: int = DRAWS
) -> pd.DataFrame:
    """Every probe against its place's reference, on the groups that both have; columns COMPARISONS.

    The reference is the first baseline of the place in the usual order (logreg where it is there);
    a control is none. "by validation" is the best SAE probe by val_auc; a "quiver" with SAE probes
    is compared with that of the baselines. n_unmatched counts groups that only one side has. p_holm
    corrects within an experiment's protocol and setting, controls left out. delta_unseen is the
    mean difference without test rows whose text stands in the training rows.
    """
    found = []
    for place, rows in labelled(table).groupby(SLICE, sort=False):
        where = dict(zip(SLICE, place, strict=True))
        for probe, source, reference, a, b in _pairings(rows):
            names = {"probe": probe, "source": source, "reference": reference}
            found.append({**where, **names, **_pair(a, b, confidence, draws)})
    rows = pd.DataFrame(found, columns=COMPARISONS)
    rows = rows[rows["n_pairs"] > 0].reset_index(drop=True)
    claims = rows["p_wilcoxon"].mask(rows["probe"].str.startswith(CONTROL).to_numpy(bool))
    rows["p_holm"] = claims.groupby([rows[c] for c in FAMILY]).transform(holm)
    types = dict.fromkeys([*SLICE, "probe", "source", "reference"], "str")
    numbers = [c for c in COMPARISONS if c.startswith("n_")] + ["wins", "losses", "ties"]
    return sort_rows(rows.astype({**types, **dict.fromkeys(numbers, "Int64")}), types)


def _pairings(
    rows: pd.DataFrame,
) -> Iterator[tuple[str, str, str, pd.DataFrame, pd.DataFrame]]:
    """What is compared at one place: names of probe, source and reference, and their rows."""
    base = rows[baseline(rows) & ~control(rows)]
    if base.empty:
        return
    first = min(base["label"].unique(), key=method_rank)
    reference = base[base["label"] == first]
    for (source, label), probe in rows.groupby(["source", "label"], sort=False):
        if label != first:
            yield str(label), str(source), first, probe, reference
    for method, sparse in rows[~baseline(rows) & ~control(rows)].groupby("method", sort=False):
        yield f"{method} by validation", "", first, quiver(sparse), reference
    candidates = arms(rows)
    chosen = quiver(candidates.pop(BASELINES))
    for name, more in candidates.items():
        yield f"quiver: {name}", "", f"quiver: {BASELINES}", quiver(more), chosen


def _pair(
    probe: pd.DataFrame, reference: pd.DataFrame, confidence: float, draws: int
) -> dict[str, float]:
    a, b, gone = common(probe, reference)
    numbers: dict[str, float] = {"n_pairs": 0}
    if len(a):
        numbers |= compare(matched(a, b), confidence, draws)
    unseen = common(probe, reference, value="test_auc_unseen")[:2]
    if len(unseen[0]):
        pairs = matched(*unseen, value="test_auc_unseen")
        numbers["delta_unseen"] = float((pairs["probe"] - pairs["reference"]).mean())
    return {**numbers, "n_unmatched": gone}
