"""The contrastive stage: directions from cached activations, tried on validation sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from actprobe import store
from actprobe.contrastive import artefact, baselines, controls, data, directions, scores
from actprobe.contrastive.artefact import Validated, plain
from actprobe.contrastive.data import Rows
from actprobe.contrastive.directions import Fitted
from actprobe.contrastive.targets import STAGE
from actprobe.errors import BadInput, Damaged
from actprobe.jobs import Outcome
from actprobe.models import open_activations
from actprobe.plan import Batch, Target
from actprobe.probes import Bootstrap, auc

log = logging.getLogger(__name__)

_rows = lru_cache(maxsize=8)(data.load)  # the layers of a model share their texts


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the targets of a batch one after the other, on one thread: a second or two each."""
    ours = batch.stage == STAGE
    tombstone = store.write_bad if ours else baselines.tombstone
    with Outcome(batch, config["on_bad_dataset"], tombstone) as out, threadpool_limits(1):
        for n, t in enumerate(batch.targets, 1):
            with out.guard(t):
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
    methods = t.spec["methods"]
    fitted = directions.fit(
        x, train.y, train.group, methods, t.spec["C"], t.spec["folds"], t.spec["seed"]
    )
    other = None
    if t.args["compare_with"]:
        with _skipping(config, left_out, t.args["compare_with"]):
            rows = _rows(places["compare_with"]["texts"], positive)
            other = _mean_difference(_vectors(places["compare_with"], rows, max_memory), rows.y)
    tried = _Tried(t, fitted, x, train, other)
    del x
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
    }
    return artefact.write(t.path, t.spec, arrays, validated, facts)


@contextmanager
def _skipping(config: Mapping[str, Any], left_out: dict[str, str], dataset: str) -> Iterator[None]:
    """Where bad datasets are skipped, keep the reason of one and go on."""
    try:
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


class _Tried:
    """Directions, those of the controls, and how they fare on validation sets."""

    def __init__(
        self,
        t: Target,
        fitted: Fitted,
        x: NDArray[np.float64],
        train: Rows,
        other: NDArray[np.float64] | None,
    ):
        n, self.seed, self.positive = t.spec["controls"], t.spec["seed"], t.spec["positive"]
        self.resamples = n["bootstrap"]
        self.unit = fitted.unit
        self.families = {
            "random": controls.random_directions(x.shape[1], n["random"], self.seed),
            "permuted": controls.permuted_directions(
                x, train.y, train.pair, n["permuted"], self.seed
            ),
        }
        if other is not None:
            self.families["projected"] = controls.without(self.unit, other)

    def on(self, place: Mapping[str, str]) -> Validated:
        """Scores and numbers of one validation set."""
        rows = _rows(place["texts"], self.positive)
        with open_activations(place["activations"]) as a:
            _check_rows(scores.n_rows(a), rows, place["activations"])
            families = np.concatenate(list(self.families.values()))
            found = scores.score(a, place["activations"], self.unit, families)
            kept = a.n_tokens if a.offsets is None else np.diff(a.offsets)
        n_tokens = kept.astype(np.int32)
        ends = np.cumsum([len(f) for f in self.families.values()])[:-1]
        means = dict(zip(self.families, np.split(found.pooled, ends), strict=True))
        null = {kind: controls.aucs(rows.y, means[kind]) for kind in ("random", "permuted")}
        rule = {"seed": self.seed, "resamples": self.resamples, "level": controls.CONFIDENCE}
        bootstrap = Bootstrap(rows.y, rule)
        known = (n_tokens > 0).all()
        length = n_tokens if known else np.array([len(text) for text in rows.text])
        numbers = []
        for i, mean in enumerate(found.values[:, :, 0]):
            test_auc = auc(rows.y, mean)
            low, high = bootstrap.interval(mean)
            numbers.append(
                {
                    "n_test": len(rows),
                    "test_auc": test_auc,
                    "ci_low": low,
                    "ci_high": high,
                    **{f"p_{kind}": controls.p_value(of, test_auc) for kind, of in null.items()},
                    "length_corr": plain(controls.length_correlation(mean, length)),
                    "first_token": plain(found.first_token[i]),
                    "auc_without_compare": auc(rows.y, means["projected"][i])
                    if "projected" in means
                    else None,
                }
            )
        return Validated(rows.y.astype(np.uint8), found.values, n_tokens, null, numbers)
