"""The contrastive stage: directions from cached activations, tried on validation sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from actprobe import store
from actprobe.contrastive import artefact, baselines, controls, data, directions, nulls, scores
from actprobe.contrastive.artefact import RANDOM, Validated, plain
from actprobe.contrastive.data import Rows
from actprobe.contrastive.targets import STAGE
from actprobe.errors import BadInput, Damaged, blamed_on
from actprobe.jobs import Outcome
from actprobe.models import Activations, open_activations
from actprobe.plan import Batch, Target
from actprobe.probes import auc, auc_interval

log = logging.getLogger(__name__)

_SCORED = 1 << 27  # bytes of scores of null directions in memory

_rows = lru_cache(maxsize=8)(data.load)  # the layers of a model share their texts


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the targets of a batch one after the other, on one thread: a second or two each."""
    ours = batch.stage == STAGE
    tombstone = store.write_bad if ours else baselines.tombstone
    with Outcome(batch, config["on_bad_dataset"], tombstone) as out, threadpool_limits(1):
        for n, t in enumerate(batch.targets, 1):
            remedy = f"leave {t.item} out of `contrastive`"
            with out.guard(t), blamed_on(f"{t.name} cannot be made", remedy):
                out.done(t, make(t, config) if ours else baselines.make(t))
            log.info("%s: %d of %d", batch.rule, n, len(batch.targets))


def make(t: Target, config: Mapping[str, Any]) -> Path:
    """Fit and try the directions of one source; returns the sealed part.

    With `on_bad_dataset: skip` what the directions cannot be tried on or compared with is left out,
    with the reason in the facts. Raises BadInput when that leaves nothing to try them on.
    """
    places, positive, max_memory = t.args["data"], t.spec["positive"], config["max_memory"]
    left_out: dict[str, str] = {}
    train = _rows(places["train"]["texts"], positive)
    x = _vectors(places["train"], train, max_memory)
    methods, C, seed = (t.spec[k] for k in ("methods", "C", "seed"))
    space = directions.span(x)
    fitted = directions.fit(x, train.y, train.group, methods, C, t.spec["folds"], seed, space)
    other = None
    if t.args["compare_with"]:
        with _skipping(config, left_out, t.args["compare_with"]):
            rows = _rows(places["compare_with"]["texts"], positive)
            other = _mean_difference(_vectors(places["compare_with"], rows, max_memory), rows.y)
    null = _null(t, space, train)
    del x, space
    tried = _Tried(t, fitted.unit, null.families, other)
    validated = {}
    for role, place in places.items():
        if role.startswith("validate."):
            dataset = role.removeprefix("validate.")
            with _skipping(config, left_out, dataset):
                validated[dataset] = tried.on(place)
    if not validated:
        raise BadInput("; ".join(left_out.values()))
    arrays = {
        "mean_positive": fitted.mean_positive,
        "mean_negative": fitted.mean_negative,
        "direction": fitted.direction,
        "norm": fitted.norm,
        "unit": fitted.unit,
    }
    numbers = [
        {
            "train_auc": plain(fitted.train_auc[i]),
            "val_auc": plain(fitted.val_auc[i]),
            "val_d": plain(fitted.val_d[i]),
            "converged": fitted.converged[i],
            "cos_compare": None if other is None else float(fitted.unit[i] @ other),
        }
        for i in range(len(methods))
    ]
    names = ("train", "source", "model", "site", "position", "score_at")
    facts = {k: t.args[k] for k in names} | {
        "compare_with": None if other is None else t.args["compare_with"],
        "methods": methods,
        "positive": positive or str(train.kind[train.y == 1][0]),
        "n_train": len(train),
        "folds": t.spec["folds"],
        "numbers": numbers,
        "left_out": left_out,
        "orders": null.orders,
        "null_unconverged": null.unconverged,
    }
    return artefact.write(t.path, t.spec, arrays, validated, facts)


@contextmanager
def _skipping(config: Mapping[str, Any], left_out: dict[str, str], dataset: str) -> Iterator[None]:
    """Where bad datasets are skipped, keep the reason of one and go on."""
    try:
        with blamed_on(f"dataset {dataset} cannot be scored", f"leave {dataset} out"):
            yield
    except BadInput as e:
        if config["on_bad_dataset"] != "skip":
            raise
        left_out[dataset] = str(e)
        log.warning("left out %s: %s", dataset, e)


def _vectors(place: Mapping[str, str], rows: Rows, max_memory: int) -> NDArray[np.float64]:
    with open_activations(place["activations"]) as a:
        _check_rows(scores.n_rows(a), rows, place["activations"])
        return scores.pooled(a, place["activations"], max_memory)


def _check_rows(n: int, rows: Rows, path: str) -> None:
    if n != len(rows):
        raise Damaged(f"{path}: {n} rows, expected {len(rows)} as in dataset {rows.dataset}")


def _mean_difference(x: NDArray[np.float64], y: NDArray) -> NDArray[np.float64]:
    difference = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    return difference / max(float(np.linalg.norm(difference)), 1e-300)


@dataclass(frozen=True)
class _Null:
    """Unit directions of the nulls by kind; how many orders the training labels have that keep pairs
    and groups, null for too many to count; the methods whose null did not converge."""

    families: dict[str, NDArray[np.float64]]
    orders: int | None
    unconverged: list[str]


def _null(t: Target, space: directions.Span, train: Rows) -> _Null:
    n, seed = t.spec["controls"], t.spec["seed"]
    made, orders = nulls.labels(train.y, train.pair, train.group, n["permuted"], seed)
    families, unconverged = nulls.families(t.spec["methods"], space, made, t.spec["C"])
    random = controls.random_directions(space.d, n["random"], seed)
    found = round(orders) if orders < 10**9 else None
    return _Null({RANDOM: random, **families}, found, unconverged)


class _Tried:
    """Directions, those of the nulls, and how they fare on validation sets."""

    def __init__(
        self,
        t: Target,
        unit: NDArray[np.float64],
        null: Mapping[str, NDArray[np.float64]],
        other: NDArray[np.float64] | None,
    ):
        self.positive, self.methods, self.unit = t.spec["positive"], t.spec["methods"], unit
        self.families = dict(null)
        if other is not None:
            self.families["projected"] = controls.without(unit, other)

    def on(self, place: Mapping[str, str]) -> Validated:
        """Scores and numbers of one validation set."""
        rows = _rows(place["texts"], self.positive)
        data.require_tested(rows)
        with open_activations(place["activations"]) as a:
            _check_rows(scores.n_rows(a), rows, place["activations"])
            found, aucs = self._score(a, place["activations"], rows.y)
            kept = a.n_tokens if a.offsets is None else np.diff(a.offsets)
        n_tokens = kept.astype(np.int32)
        known = (n_tokens > 0).all()
        length = n_tokens if known else np.array([len(text) for text in rows.text])
        numbers = []
        for i, (method, mean) in enumerate(zip(self.methods, found.values[:, :, 0], strict=True)):
            test_auc = auc(rows.y, mean)
            low, high = auc_interval(rows.y, mean, rows.group)
            numbers.append(
                {
                    "n_test": len(rows),
                    "test_auc": test_auc,
                    "ci_low": plain(low),
                    "ci_high": plain(high),
                    "p_random": controls.p_value(aucs[RANDOM], test_auc),
                    "p_permuted": controls.p_value(aucs[method], test_auc),
                    "length_corr": plain(controls.length_correlation(mean, length)),
                    "first_token": plain(found.first_token[i]),
                    "auc_without_compare": plain(aucs["projected"][i])
                    if "projected" in aucs
                    else None,
                }
            )
        null = {kind: of for kind, of in aucs.items() if kind != "projected"}
        return Validated(rows.y.astype(np.uint8), found.values, n_tokens, null, numbers)

    def _score(
        self, a: Activations, name: str, y: NDArray
    ) -> tuple[scores.Scores, dict[str, NDArray[np.float64]]]:
        """Scores along the directions, and AUROCs of the families: as many of their directions at a
        time as `_SCORED` bytes of scores allow."""
        every = np.concatenate(list(self.families.values()))
        parts = np.array_split(every, -(-8 * len(every) * len(y) // _SCORED))
        found = scores.score(a, name, self.unit, parts[0])
        aucs = [controls.aucs(y, found.pooled)]
        aucs += [controls.aucs(y, scores.means(a, name, part)) for part in parts[1:]]
        ends = np.cumsum([len(f) for f in self.families.values()])[:-1]
        split = np.split(np.concatenate(aucs), ends)
        return found, dict(zip(self.families, split, strict=True))
