"""Makes evaluations: scores of a collection by kept models, and numbers of the rows that were new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actprobe import sae
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.probes import batch as batches
from actprobe.probes import data, extensions, intervals, keep, leakage, metrics, protocol
from actprobe.probes.evaluations import classes, nulls
from actprobe.probes.evaluations.targets import EvaluationTarget
from actprobe.probes.kinds import BINARY, CONTINUOUS, ONE_VS_REST, kind_of
from actprobe.probes.thresholds import BOUNDARY

Vector = NDArray[np.float64]

FIT = ("dataset", "label", "model", "site", "position", "source", "protocol", "setting", "condition",
       "method")  # fmt: skip
_NUMBERS = ("score", "ci_low", "ci_high", "null_low", "null_high")
KEPT = {
    "row": pa.list_(pa.int32()),
    "label": pa.list_(pa.float64()),
    "scores": pa.list_(pa.float64()),
    "excluded": pa.list_(pa.bool_()),
}


def columns() -> pa.Schema:
    """One row per fit: which fit (`FIT`, k, seed), tried on which `collection`; n rows are scored, of
    which n_used have numbers, n_excluded share a text or group with rows that were fitted, and n_other
    have no label that the fit knows; the main metric with its interval and null band, and all metrics.

    kept_row: places of the scored rows in the collection; kept_label: their class numbers in the fit, or
    values (NaN: none); kept_scores: [n], or [n, classes] flattened; kept_excluded: [n].
    """
    measured = [m.column for m in metrics.all_metrics().values()]
    return pa.schema(
        [
            *((name, pa.string()) for name in (*FIT, "collection", "kind", "metric")),
            *((name, pa.int32()) for name in ("k", "seed", "n", "n_used", "n_excluded", "n_other")),
            *((name, pa.float64()) for name in (*_NUMBERS, *measured)),
            *((name, pa.string()) for name in ("reason", "key")),
            *((f"kept_{name}", kind) for name, kind in KEPT.items()),
        ]
    )


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch with at most `threads` workers; any number gives the same bytes."""
    extensions.loaded(config)
    with Outcome(batch, config["on_bad_dataset"], _tombstone) as out:
        batches.fill(out, out.todo(), batch.rule, config, threads, (rows, _write))


def _write(t: EvaluationTarget, found: list[dict[str, Any]]) -> Path:
    return store.write_table(t.path, pa.Table.from_pylist(found, columns()), t.record)


def _tombstone(path: str, spec: dict[str, Any], reason: str) -> Path:
    return store.write_table(path, columns().empty_table(), spec, bad=reason)


@dataclass(frozen=True)
class _Rows:
    """A collection as it stands in its texts [N]: digests, names of groups or None, class number or
    value as float64 (NaN: none), and what belongs together. kind "" where nothing is labelled."""

    digest: NDArray[Any]
    group: NDArray[Any]
    y: Vector
    cluster: NDArray[Any]
    names: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.digest)


def _read(path: str) -> _Rows:
    table = store.read_table(path, ["digest", "group"])
    digest, group = (table[c].to_numpy(zero_copy_only=False) for c in ("digest", "group"))
    facts, n = store.read_header(path)["facts"], len(table)
    y, cluster = np.full(n, math.nan), np.arange(n)
    if not facts["classes"] and kind_of(facts) != CONTINUOUS:
        return _Rows(digest, group, y, cluster, (), "")
    of = data.labels(path)
    y[of.row] = of.y
    cluster[of.row] = of.component
    return _Rows(digest, group, y, cluster, of.classes, of.kind)


def rows(t: EvaluationTarget) -> list[dict[str, Any]]:
    """One row for each fit of the fit's file.

    Raises BadInput where an input is a tombstone or the labels are others, ActprobeError where the
    protocol changed after planning.
    """
    args = t.args
    recipe = protocol.recipe(protocol.load(args.protocol), args.setting, args.method)
    spec = store.read_header(args.fit)["spec"]
    if keys.spec_key(recipe) != spec["recipe"]:
        raise ActprobeError(f"protocol {args.protocol} changed while the run was going on")
    keys.require_unchanged(
        extensions.used(recipe["method"]["family"]),
        dict(t.spec.extensions or {}),
        "the files of `extensions`",
    )
    fits = store.read_table(args.fit).to_pylist()
    tried, train = _read(args.texts), _read(args.train_texts)
    numbers = None
    if tried.kind and "labels" not in spec:
        numbers = _numbers(t, train, tried)
    matrix = None
    if args.matrix is not None:
        matrix = data.matrix(args.matrix, recipe["method"], recipe["setting"])
        if matrix.shape[0] != len(tried):
            raise Damaged(
                f"{args.matrix}: {matrix.shape[0]} rows, expected {len(tried)} as in {args.texts}"
            )
    found = []
    for fit in fits:
        place = {c: fit[c] for c in (*FIT, "k", "seed", "kind", "metric")}
        place |= {"collection": args.collection, "key": keys.short(t.key), "reason": ""}
        place |= dict.fromkeys(_NUMBERS, math.nan)
        why = fit["reason"] or ("" if matrix is None else fit["kept_why"])
        if why:
            found.append({**place, "reason": why})
            continue
        if spec.get("labels") == ONE_VS_REST and tried.kind:
            y = _against_rest(tried, fit["label"])
        else:
            y = _renumbered(tried, numbers)
        at, scores = _scored(t, fit, matrix, recipe)
        shared = _shared(train, tried, fit, own=matrix is None)[at]
        found.append(
            place | _row(fit["kind"], y[at], scores, shared, tried.cluster[at], recipe)
            | {"kept_row": at.astype(np.int32)}
        )  # fmt: skip
    return found


def _numbers(t: EvaluationTarget, train: _Rows, tried: _Rows) -> list[int] | None:
    name = t.args.collection
    if CONTINUOUS in (train.kind, tried.kind):
        if train.kind != tried.kind:
            raise BadInput(f"{name} has {tried.kind} labels, the probe is of {train.kind} ones")
        return None
    try:
        return classes.numbers(train.kind, train.names, tried.names, t.spec.by_number)
    except classes.Differ as e:
        raise BadInput(f"{name} {e}") from None


def _renumbered(tried: _Rows, numbers: list[int] | None) -> Vector:
    """Labels in the fit's numbers, NaN where it has none."""
    if numbers is None:
        return tried.y
    known = np.array([*numbers, classes.UNKNOWN], np.float64)
    known[known == classes.UNKNOWN] = math.nan
    return known[np.where(np.isnan(tried.y), len(numbers), tried.y).astype(int)]


def _against_rest(tried: _Rows, name: str) -> Vector:
    if name not in tried.names:
        return np.full(len(tried), math.nan)
    return np.where(np.isnan(tried.y), math.nan, tried.y == tried.names.index(name))


def _scored(
    t: EvaluationTarget, fit: Mapping[str, Any], matrix: Any, recipe: Mapping[str, Any]
) -> tuple[NDArray[np.int64], Vector]:
    """Places of the rows that are scored, and their scores [n] or [n, classes]."""
    if matrix is None:
        at = np.array(fit["kept_test"], np.int64)
        n = len(fit["kept_train"]) + len(fit["kept_validation"])
        each = np.array(fit["kept_scores"], np.float64).reshape(n + len(at), -1)[n:]
        return at, each[:, 0] if each.shape[1] == 1 else each
    scorer = keep.read(fit["kept_model"])
    if scorer.needs_train_rows:
        train = data.matrix(t.args.train_matrix, recipe["method"], recipe["setting"])
        at = np.array(fit["kept_train"], np.int64)
        rows = train.rows(at) if isinstance(train, sae.Latents) else train[at]
        scorer = keep.with_train_rows(scorer, rows)
    scores = scorer.scores(matrix)
    return np.arange(len(scores)), scores


def _shared(train: _Rows, tried: _Rows, fit: Mapping[str, Any], own: bool) -> NDArray[np.bool_]:
    """Rows of a collection [N] with a text or a group that was fitted; in the fit's own collection with
    anything that belongs to it."""
    fitted = np.array([*fit["kept_train"], *fit["kept_validation"]], np.int64)
    found = leakage.repeated(train.digest[fitted], tried.digest)
    groups = {g for g in train.group[fitted] if g is not None}
    found |= np.array([g in groups for g in tried.group], bool)
    if own:
        found |= np.isin(tried.cluster, train.cluster[fitted])
    return found


def _row(
    kind: str, y: Vector, scores: Vector, shared: NDArray[np.bool_], cluster: NDArray[Any],
    recipe: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Counts and numbers of one fit on these rows [n]."""
    unknown, select = np.isnan(y), recipe.get("select")
    used = ~unknown & ~shared
    row: dict[str, Any] = {
        "n": len(y),
        "n_used": int(used.sum()),
        "n_excluded": int(shared.sum()),
        "n_other": int((unknown & ~shared).sum()),
        "kept_label": y,
        "kept_scores": scores.ravel(),
        "kept_excluded": shared,
    }
    if unknown.all():
        return row | {"reason": "no row has a label that the probe knows"}
    if not used.any():
        return row | {
            "reason": "every labelled row shares a text or group with rows that were fitted"
        }
    said, labels, together = scores[used], y[used], cluster[used]
    labels = labels if kind == CONTINUOUS else labels.astype(np.int64)
    predicted = _predicted(kind, said)
    measured = metrics.measure(kind, labels, said, predicted)
    score = measured[metrics.main_metric(kind, select).column]
    if math.isnan(score):
        what = "value" if kind == CONTINUOUS else "class"
        return row | measured | {"reason": f"one {what} among the rows that are new"}
    level = recipe["interval"]["level"]
    low, high = intervals.main_interval(kind, labels, said, together, level, select, predicted)
    null_low, null_high = nulls.null_band(kind, labels, said, together, select)
    return row | measured | {
        "score": score, "ci_low": low, "ci_high": high, "null_low": null_low, "null_high": null_high,
    }  # fmt: skip


def _predicted(kind: str, scores: Vector) -> NDArray[Any]:
    if kind == CONTINUOUS:
        return scores
    if kind == BINARY:
        return (scores > BOUNDARY).astype(np.int64)
    return np.asarray(scores.argmax(axis=1))
