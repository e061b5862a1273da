"""Paired comparisons: the same datasets, conditions and runs on both sides, or none at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from actprobe.base.errors import ActprobeError
from actprobe.probes.feature_targets import EACH
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics import Metric, main_metric
from actprobe.results import scores
from actprobe.results.features import SHARED, is_control, rank
from actprobe.results.seeds import corrected_t, interval
from actprobe.results.select import BASELINES, BY, SLICE, TOLERANCE, arms, quiver
from actprobe.results.stats import CONFIDENCE, mean_interval
from actprobe.results.tables import method_rank, sort_rows
from actprobe.results.views import CONTROL, EACH_K, baseline, control, count, named

NAMES = [*SLICE, "dataset", "columns", "probe", "source", "reference", "reference_source"]
TEXT = [*NAMES, "test", "p_note"]
_COUNTS = ["n_datasets", "n_pairs", "n_unmatched", "wins", "losses", "ties", "family"]
COMPARISONS = [*NAMES, *_COUNTS[:3], "delta", "ci_low", "ci_high", *_COUNTS[3:6]]
COMPARISONS += ["test", "p", "family", "p_holm", "p_note", "delta_unseen"]
SIGNED_RANK, CORRECTED_T = "signed rank over datasets", "corrected t over runs"
FAMILY = ["experiment", "protocol", "setting", "metric"]


class Unmatched(ActprobeError):
    """Two result sets do not cover the same datasets and conditions."""


def matched(
    probe: pd.DataFrame,
    reference: pd.DataFrame,
    on: Sequence[str] = BY,
    value: str = "test_score",
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
    probe: pd.DataFrame, reference: pd.DataFrame, on: Sequence[str] = BY, value: str = "test_score"
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Both sides cut down to the groups for which both have a number, and how many groups went."""
    sides = [rows[rows[value].notna()] for rows in (probe, reference)]
    keys = [pd.MultiIndex.from_frame(rows[list(on)]) for rows in sides]
    kept = [rows[key.isin(other)] for rows, key, other in zip(sides, keys, keys[::-1], strict=True)]
    return kept[0], kept[1], len(keys[0].symmetric_difference(keys[1]))


def compare(
    pairs: pd.DataFrame, confidence: float = CONFIDENCE, metric: Metric | None = None
) -> dict[str, float]:
    """What the pairs of `matched` say about probe minus reference.

    metric: of the values (default: that of two classes). delta: mean over pairs, after one over the
    labels of a dataset. ci_low, ci_high: `mean_interval` of the datasets' mean deltas; a dataset's
    labels and conditions share their rows and are no independent evidence. p: two-sided signed-rank test
    over datasets (Wilcoxon 1945), NaN when no delta differs from zero; p_least: the smallest p that so
    many differing datasets can give. wins, losses and ties are those of `_won`, of pairs.
    """
    metric = metric or main_metric(BINARY)
    delta = _over_labels(pairs)
    per_dataset = delta.groupby("dataset").mean()
    _, low, high = mean_interval(per_dataset, confidence, scores.differences(metric))
    per_dataset = per_dataset.where(per_dataset.abs() > TOLERANCE, 0.0)
    differing = int((per_dataset != 0).sum())
    return {
        "n_datasets": len(per_dataset),
        "n_pairs": len(pairs),
        "delta": float(delta.mean()),
        "ci_low": low,
        "ci_high": high,
        **_won(pairs["probe"] - pairs["reference"], metric),
        "p": float(stats.wilcoxon(per_dataset).pvalue) if differing else np.nan,
        "p_least": 0.5 ** (differing - 1) if differing else np.nan,
    }


def _won(deltas: pd.Series, metric: Metric) -> dict[str, int]:
    """How often the probe is better, worse, or within TOLERANCE of the reference."""
    better = scores.goodness(deltas, metric)
    wins, losses = int((better > TOLERANCE).sum()), int((better < -TOLERANCE).sum())
    return {"wins": wins, "losses": losses, "ties": len(better) - wins - losses}


def _over_labels(pairs: pd.DataFrame) -> pd.Series:
    """Differences of pairs, those of a dataset's labels averaged; `dataset` is a level of the index."""
    by = [c for c in pairs.columns if c not in ("label", "probe", "reference")]
    each = pairs["probe"] - pairs["reference"]
    return each.groupby([pairs[c] for c in by], dropna=False, sort=False).mean()


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P values [m] corrected for m comparisons (Holm 1979); NaNs stay and are not counted."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def comparison_table(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """All comparisons of a tidy table, over datasets and over runs; columns COMPARISONS.

    Probes of texts are compared with their place's reference (`_over_datasets`), probes of features with
    each other in every collection (`_over_runs`), which `dataset` names. n_unmatched counts groups, or
    runs, that only one side has. delta_unseen is the mean difference without test rows whose text, group
    or pair also trains. The corrected p values are those of `corrected`.
    """
    of_texts, fits = named(table[table["columns"] == ""]), named(table[table["columns"] != ""])
    found = [*_over_datasets(of_texts, confidence), *_over_runs(fits, confidence)]
    rows = pd.DataFrame(found, columns=[*COMPARISONS, "p_least"])
    rows[TEXT] = rows[TEXT].astype(object).where(rows[TEXT].notna(), "")
    rows = corrected(rows[rows["n_pairs"] > 0].reset_index(drop=True), 1 - confidence)
    rows = rows.astype(dict.fromkeys(TEXT, "str") | dict.fromkeys(_COUNTS, "Int64"))
    return sort_rows(rows[COMPARISONS], NAMES)


def claims(comparisons: pd.DataFrame) -> pd.Series:
    """True for the comparisons that claim something: methods, and choices by validation.

    Controls claim nothing, and the probes of one SAE at every single k are a curve; their p values are
    no evidence by themselves.
    """
    probe = comparisons["probe"].astype("str")
    return ~probe.str.startswith(CONTROL) & ~probe.str.contains(EACH_K, regex=False)


def corrected(rows: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """`rows` with family, p_holm and p_note.

    A family are the claims with a p value of one experiment, protocol, setting and metric; `family` is
    their number. p_holm: their p values after Holm's correction. Where not even the smallest possible p
    would pass `alpha` after it, p_holm is NaN and p_note says what is missing.
    """
    rows = rows.assign(family=pd.NA, p_holm=np.nan)
    tested = rows[claims(rows) & rows["p"].notna()]
    for _, family in tested.groupby(FAMILY, sort=False):
        least = len(family) * family["p_least"].min()
        rows.loc[family.index, "family"] = len(family)
        if least > alpha:
            rows.loc[family.index, "p_note"] = _cannot_pass(family, alpha)
        else:
            rows.loc[family.index, "p_holm"] = holm(family["p"])
    return rows


def _cannot_pass(family: pd.DataFrame, alpha: float) -> str:
    needed = math.ceil(1 + math.log2(len(family) / alpha))
    return (
        f"too few datasets for a p: of {count(len(family), 'comparison')} none can pass {alpha:.2g} "
        f"with {int(family['n_datasets'].max())}; {needed} could"
    )


def _over_datasets(rows: pd.DataFrame, confidence: float) -> Iterator[dict[str, Any]]:
    """Every probe against its place's reference, on the groups that both have.

    The reference is the first baseline of the place in the usual order (logreg where it is there);
    a control is none. "by validation" is the best SAE probe by val_score; a "quiver" with SAE probes is
    compared with that of the baselines.
    """
    for place, there in rows.groupby(SLICE, sort=False):
        where = dict(zip(SLICE, place, strict=True)) | {"test": SIGNED_RANK}
        for probe, source, reference, a, b in _pairings(there):
            names = {"probe": probe, "source": source, "reference": reference}
            yield {**where, **names, **_pair(a, b, confidence)}


def _pairings(
    rows: pd.DataFrame,
) -> Iterator[tuple[str, str, str, pd.DataFrame, pd.DataFrame]]:
    """What is compared at one place: names of probe, source and reference, and their rows."""
    base = rows[baseline(rows) & ~control(rows)]
    if base.empty:
        return
    first = min(base["probe"].unique(), key=method_rank)
    reference = base[base["probe"] == first]
    for (source, name), probe in rows.groupby(["source", "probe"], sort=False):
        if name != first:
            yield str(name), str(source), first, probe, reference
    for method, sparse in rows[~baseline(rows) & ~control(rows)].groupby("method", sort=False):
        yield f"{method} by validation", "", first, quiver(sparse), reference
    candidates = arms(rows)
    chosen = quiver(candidates.pop(BASELINES))
    for name, more in candidates.items():
        yield f"quiver: {name}", "", f"quiver: {BASELINES}", quiver(more), chosen


def _pair(probe: pd.DataFrame, reference: pd.DataFrame, confidence: float) -> dict[str, float]:
    a, b, gone = common(probe, reference)
    metric = scores.metric_of(reference)
    numbers: dict[str, float] = {"n_pairs": 0}
    if len(a):
        numbers |= compare(matched(a, b), confidence, metric)
    unseen = common(probe, reference, value="test_score_unseen")[:2]
    if len(unseen[0]):
        pairs = matched(*unseen, value="test_score_unseen")
        numbers["delta_unseen"] = float(_over_labels(pairs).mean())
    return {**numbers, "n_unmatched": gone}


def _over_runs(rows: pd.DataFrame, confidence: float) -> Iterator[dict[str, Any]]:
    """Every two representations read by one method, and every two methods on one representation.

    Pairs are the runs that both have; a collection's labels are averaged in each run. Single modules are
    left out. The reference is a control, or else the first in the usual order; two controls are not
    compared. Interval and p are of Nadeau and Bengio's corrected t (`seeds`), for runs share rows; where
    all test on the same rows there are none, for these runs do not tell what other rows would give.
    """
    fits = rows[(rows["columns"] != EACH) & rows["test_score"].notna()]
    cell = ["source", "probe"]
    for place, there in fits.groupby([*SLICE, "dataset", "columns"], sort=False):
        where = dict(zip([*SLICE, "dataset", "columns"], place, strict=True))
        where |= {"test": CORRECTED_T, "n_datasets": 1, "p_least": 0.0}
        metric = scores.metric_of(there)
        ratio = float((there["n_test"] / there["n_train"]).mean())
        shared = there["params"].str.contains(SHARED, regex=False).any()
        values = [
            there.groupby([*cell, "seed"])[c].mean().unstack("seed")
            for c in ("test_score", "test_score_unseen")
        ]
        control = dict(zip(there["source"], is_control(there), strict=True))
        order = sorted(
            values[0].index, key=lambda c: (not control[c[0]], rank(c[0]), method_rank(c[1]))
        )
        for b, a in combinations(order, 2):
            if (a[0] == b[0]) == (a[1] == b[1]) or control[a[0]]:
                continue
            names = {"source": a[0], "probe": a[1], "reference_source": b[0], "reference": b[1]}
            delta, unseen = (v.loc[a] - v.loc[b] for v in values)
            known = delta.dropna().to_numpy(float)
            n_runs = int((values[0].loc[[a, b]].notna()).any().sum())
            yield (
                where
                | names
                | {
                    "n_pairs": len(known),
                    "n_unmatched": n_runs - len(known),
                    **_of_runs(known, ratio, metric, confidence, bool(shared)),
                    "delta_unseen": unseen.mean(),
                }
            )


def _of_runs(
    deltas: NDArray[np.float64], ratio: float, metric: Metric, confidence: float, shared: bool
) -> dict[str, Any]:
    """What the differences of runs say; no interval and no p where their test rows are `shared`."""
    if not len(deltas):
        return {}
    found = {"delta": float(deltas.mean()), **_won(pd.Series(deltas), metric)}
    if shared:
        return found | {"p_note": "the runs test on the same rows"}
    low, high = interval(deltas, ratio, scores.differences(metric), confidence)
    return found | {"ci_low": low, "ci_high": high, "p": corrected_t(deltas, ratio)}
