"""One target to its tidy rows: which conditions it has, and what the row of each says."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actprobe import keys, sae
from actprobe.errors import ActprobeError, BadInput, Damaged
from actprobe.plan import Target
from actprobe.probes import data, leakage, methods, metrics, protocol, splits, tokens, validation
from actprobe.probes.data import Labels
from actprobe.probes.methods import Matrix
from actprobe.probes.search import Fitted, search
from actprobe.probes.splits import CannotFit, Condition, Rows

log = logging.getLogger(__name__)

EMPTY: dict[str, Any] = {
    **dict.fromkeys(("k", "n_train", "n_test")),
    **dict.fromkeys(("val_auc", "test_auc", "test_acc", "test_f1", "ci_low", "ci_high"), math.nan),
    "converged": None,
    **dict.fromkeys(("leak_fraction", "test_auc_unseen", "test_brier", "test_ece"), math.nan),
    "reason": "",
    "params": "{}",
}
_SAME = 0.5  # share of repeated texts from which a test set is not out of distribution


@dataclass(frozen=True)
class Source:
    """Labels and the matrix of the same rows; the train set, or an out-of-distribution test set."""

    labels: Labels
    matrix: Any


def rows(target: Target) -> list[dict[str, Any]]:
    """All rows of one probes target: seeds × conditions × k.

    What has no number has a row with its `reason`. Raises BadInput when an input is a tombstone or
    cannot be used, ActprobeError when the protocol changed after planning.
    """
    args = target.args
    recipe = protocol.recipe(
        protocol.load(args["protocol"]), target.spec["setting"], target.spec["method"]
    )
    if keys.spec_key(recipe) != target.spec["recipe"]:
        raise ActprobeError(f"protocol {args['protocol']} changed while the run was going on")
    source = _source(args["texts"], args["matrix"], recipe)
    test = None
    if "test_texts" in args:
        test = _source(args["test_texts"], args["test_matrix"], recipe)
        _check_other(source.labels, test.labels, args)
        test = Source(_by_name(source.labels, test.labels, args), test.matrix)
    n = recipe["setting"].get("rows", recipe["rows"])
    source = Source(source.labels.head(n), source.matrix)
    place = {k: args[k] for k in ("dataset", "model", "site", "position", "source")}
    place |= {k: target.spec[k] for k in ("protocol", "setting", "method")}
    return [
        {**place, **EMPTY, "seed": seed, "condition": c.name, **row, "key": keys.short(target.key)}
        for seed in recipe["seeds"]
        for c in splits.conditions(recipe["setting"], args.get("test_set", ""))
        for row in _condition(source, test, recipe, c, seed)
    ]


def _source(texts: str, matrix: str, recipe: Mapping[str, Any]) -> Source:
    labels, x = data.labels(texts), data.matrix(matrix, recipe["method"], recipe["setting"])
    if x.shape[0] != labels.n_rows:
        raise Damaged(f"{matrix}: {x.shape[0]} rows, expected {labels.n_rows} as in {texts}")
    return Source(labels, x)


def _check_other(train: Labels, test: Labels, args: Mapping[str, Any]) -> None:
    """Refuse a test set that is the train dataset again."""
    share = float(leakage.repeated(train.digest, test.digest).mean())
    if share > _SAME:
        raise BadInput(
            f"{args['test_texts']}: {share:.0%} of its texts are in {args['dataset']} as well: "
            "not an out-of-distribution test set"
        )


def _by_name(train: Labels, test: Labels, args: Mapping[str, Any]) -> Labels:
    """The test set with the train set's class numbers, by the classes' names.

    Wholly different names are taken in their order. Raises BadInput when there are not two, and
    when a name has another number in each set while the other names differ.
    """
    if test.classes == train.classes or len(train.classes) != 2:
        return test
    ours, theirs = (", ".join(map(repr, labels.classes)) for labels in (train, test))
    words = f"{args['test_set']} has the classes {theirs}, {args['dataset']} has {ours}"
    if len(test.classes) != 2:
        raise BadInput(f"{words}: a test set needs two")
    if test.classes == train.classes[::-1]:
        return replace(test, y=1 - test.y, classes=train.classes)
    if any(
        c in test.classes and test.classes.index(c) != train.classes.index(c) for c in train.classes
    ):
        raise BadInput(f"{words}: which is which? Name the class 1 of both with `positive`")
    log.warning("%s: taken for the same in this order", words)
    return test


def _condition(
    source: Source, test: Source | None, recipe: Mapping[str, Any], condition: Condition, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of one condition and seed: one, or one for each k."""
    ks = recipe["method"].get("ks", [None])
    try:
        train_rows, test_rows = _split(source.labels, recipe, condition, seed)
        if test is not None:
            test_rows = np.arange(len(test.labels))
        fits = _Fits(source, train_rows, test or source, test_rows, recipe, condition, seed)
        rows = [fits.row(k) for k in ks]
    except CannotFit as e:
        rows = [{"k": k, "reason": str(e)} for k in ks]
    yield from rows


def _split(
    labels: Labels, recipe: Mapping[str, Any], condition: Condition, seed: int
) -> tuple[Rows, Rows]:
    split, setting = recipe["split"], recipe["setting"]
    if len(labels.classes) != 2:
        raise CannotFit(f"needs two classes, found {len(labels.classes)}")
    if split["groups"] == "ignore":
        n_train, n_test = splits.sizes(labels.y, condition, setting, split)
        if "test_set" in setting and recipe["method"]["reads"] == "latents":
            return splits.first_of_each(labels.y, n_train, seed)
        return splits.draw(labels.y, n_train, n_test, condition.ratio, seed)
    return splits.disjoint(
        labels.y, labels.component, labels.split, condition, setting, split, seed
    )


class _Fits:
    """Everything that the fits of one condition and seed share."""

    def __init__(
        self,
        source: Source,
        train: Rows,
        other: Source,
        test: Rows,
        recipe: Mapping[str, Any],
        condition: Condition,
        seed: int,
    ) -> None:
        self.method, self.seed = recipe["method"], seed
        self.rule, self.notes = recipe["validation"], {}
        if other.labels.classes != source.labels.classes:
            self.notes["test_classes"] = other.labels.classes
        self.y_train = splits.flip(source.labels.y[train], condition.noise, seed)
        if len(np.unique(self.y_train)) < 2:
            raise CannotFit(f"one class only among {len(train)} train rows")
        self.y_test = other.labels.y[test]
        self.seen = leakage.repeated(source.labels.digest[train], other.labels.digest[test])
        component = source.labels.component[train] if self.rule["groups"] == "disjoint" else None
        self.folds = validation.folds(self.y_train, self.rule, seed, component)
        if self.method.get("labels") == "shuffled":
            shuffler = np.random.RandomState(self.method.get("seed", seed))
            self.y_train = shuffler.permutation(self.y_train)
        self.X_train: Any
        self.X_test: Any
        self.X_folds: list[Matrix] | None = None
        self.bootstrap = metrics.Bootstrap(self.y_test, recipe["bootstrap"])
        at_train, at_test = source.labels.row[train], other.labels.row[test]
        if self.method["reads"] in ("latents", "token_latents"):
            best = self._best(source, at_train, slice(None))
            fired = source.matrix.columns(best, at_train)
            if not fired.any():
                raise CannotFit(f"no latent fires on the {len(train)} train rows")
            self.X_train = self._codes(fired)
            self.X_test = self._codes(other.matrix.columns(best, at_test))
            if self.method.get("ranking_rows") == "fit":
                chosen = [self._best(source, at_train, a) for a, _ in self.folds]
                self.X_folds = [self._codes(source.matrix.columns(c, at_train)) for c in chosen]
        elif self.method["reads"] == "tokens":
            most = recipe["setting"]["max_tokens"]
            self.X_train = source.matrix.rows(at_train, most)
            self.X_test = other.matrix.rows(at_test, most)
            if self.method["family"] != "attention":
                self.X_train, self.X_test = tokens.concat_pca(
                    self.X_train, self.X_test, self.method["components"], seed
                )
        else:
            self.X_train = source.matrix[at_train].astype(np.float64)
            self.X_test = other.matrix[at_test].astype(np.float64)

    def _best(self, source: Source, at: Rows, ranked: Any) -> Rows:
        """As many latents as the largest k, best first, by the rows `ranked` of `at` alone."""
        y, rule, most = self.y_train[ranked], self.method["ranking"], self.method["ks"][-1]
        if len(np.unique(y)) < 2:
            return np.arange(0)  # a fold without a fit
        return sae.rank(source.matrix, at[ranked], y, rule, most)

    def _codes(self, x: Matrix) -> Matrix:
        """Codes as the method reads them."""
        if "binarise" in self.method:
            return (np.abs(x) > self.method["binarise"]).astype(np.float64)
        return x

    def row(self, k: int | None) -> dict[str, Any]:
        """The tidy row of the fit on the first k columns, or on all."""
        fitted = self._fit(k)
        params = methods.json_params(fitted.params) | self.notes
        params["unconverged"] = fitted.unconverged
        if k is not None:
            params["latents"] = int(self.X_train[:, :k].any(axis=0).sum())
        low, high = self.bootstrap.interval(fitted.scores)
        new = ~self.seen
        return {
            "k": k,
            "n_train": len(self.y_train),
            "n_test": len(self.y_test),
            "val_auc": fitted.val_auc,
            **metrics.evaluate(self.y_test, fitted.scores, fitted.predicted),
            "ci_low": low,
            "ci_high": high,
            "converged": fitted.converged,
            "leak_fraction": float(self.seen.mean()),
            "test_auc_unseen": metrics.auc(self.y_test[new], fitted.scores[new]),
            "reason": "" if len(np.unique(self.y_test)) == 2 else "one class in the test set",
            "params": json.dumps(params, sort_keys=True),
        }

    def _fit(self, k: int | None) -> Fitted:
        if self.method["family"] == "attention":
            from actprobe.probes import attention  # torch, which no other probe needs

            return attention.fit(self.X_train, self.y_train, self.X_test, self.method, self.seed)
        return search(
            self.X_train[:, :k],
            self.y_train,
            self.X_test[:, :k],
            self.method,
            self.folds,
            self.rule,
            self.seed,
            [x[:, :k] for x in self.X_folds] if self.X_folds is not None else None,
        )
