"""One target to its tidy rows: which conditions it has, and what the row of each says."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import keys, sae, store
from actprobe.errors import ActprobeError, BadInput, Damaged, blamed_on
from actprobe.models import rows_begin_with_bos
from actprobe.plan import Target
from actprobe.probes import (
    data,
    intervals,
    leakage,
    methods,
    metrics,
    permute,
    protocol,
    sizes,
    splits,
    tokens,
    validation,
)
from actprobe.probes.data import Labels
from actprobe.probes.methods import Matrix
from actprobe.probes.search import Fitted, search
from actprobe.probes.sizes import CannotFit, Condition
from actprobe.probes.splits import Rows

log = logging.getLogger(__name__)

EMPTY: dict[str, Any] = {
    **dict.fromkeys(("k", "n_train", "n_test", "n_unused", "group_fraction")),
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
    _check_bos(target)
    source = _source(args["texts"], args["matrix"], recipe)
    test = None
    if "test_texts" in args:
        test = _source(args["test_texts"], args["test_matrix"], recipe)
        _check_other(source.labels, test.labels, args)
        test = Source(_by_name(source.labels, test.labels, args), test.matrix)
    place = {k: args[k] for k in ("dataset", "model", "site", "position", "source")}
    place |= {k: target.spec[k] for k in ("protocol", "setting", "method")}
    found = []
    for seed in recipe["seeds"]:
        labels = kept(source.labels, recipe, seed)
        fixed = {**place, **EMPTY, "seed": seed, "n_unused": labels.n_unused}
        fixed["key"] = keys.short(target.key)
        used = Source(labels, source.matrix)
        for c in sizes.conditions(recipe["setting"], args.get("test_set", "")):
            with _named({**place, "seed": seed, "condition": c.name}):
                rows = list(_condition(used, test, recipe, c, seed))
            found += [{**fixed, "condition": c.name, **row} for row in rows]
    return found


def kept(labels: Labels, recipe: Mapping[str, Any], seed: int) -> Labels:
    """The rows that the fits of a seed are split from."""
    most = recipe["setting"].get("rows", recipe["rows"]["most"])
    return labels.keep(most, recipe["rows"]["kept"], seed)


def _named(place: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Blames what a library raises inside on this fit.

    A fit whose numbers do not exist has a reason instead (`CannotFit`) and does not come here.
    """
    at = f", condition {place['condition']}" if place["condition"] else ""
    return blamed_on(
        f"{place['dataset']}: {place['method']} of {place['protocol']} ({place['setting']}{at}, "
        f"seed {place['seed']}) on {place['source']} cannot be fitted",
        f"leave {place['method']} or {place['dataset']} out of this entry of `probes`",
    )


def _check_bos(target: Target) -> None:
    """Refuse rows of a causal model without the beginning of sequence that the protocol is about.

    A tokenizer that has no such token leaves nothing out.
    """
    args = target.args
    if protocol.load(args["protocol"])["bos"] != "added":
        return
    for path in (args[k] for k in ("matrix", "test_matrix") if k in args):
        facts = store.read_header(path)["facts"]
        left_out = facts.get("has_bos", True) and rows_begin_with_bos(facts) is False
        if facts.get("causal") and left_out:
            raise BadInput(
                f"{path}: its rows begin with no BOS token, and {target.spec['protocol']} is about "
                f"activations after one; write `prepend_bos: true` in models.{args['model']}, use "
                "actprobe-1, or a protocol of your own that extends this one and says `bos: any`"
            )


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
        train_rows, test_rows = split(source.labels, recipe, condition, seed)
        if test is not None:
            test_rows = np.arange(len(test.labels))
            _check_test_set(test.labels, recipe["split"])
        fits = _Fits(source, train_rows, test or source, test_rows, recipe, condition, seed)
    except CannotFit as e:
        yield from ({"k": k, "reason": str(e)} for k in ks)
        return
    for k in ks:
        try:
            row = fits.row(k)
        except CannotFit as e:
            row = {"k": k, "reason": str(e)}
        yield row


def _check_test_set(labels: Labels, split: Mapping[str, Any]) -> None:
    positives = int(labels.y.sum())
    if 0 < positives < len(labels):  # of one class the accuracy is still told
        sizes.check_classes(positives, len(labels) - positives, split.get("least_test", 1))


def split(
    labels: Labels, recipe: Mapping[str, Any], condition: Condition, seed: int
) -> tuple[Rows, Rows]:
    """Train and test rows of a condition, as places among the labels. Raises CannotFit."""
    split, setting = recipe["split"], recipe["setting"]
    if len(labels.classes) != 2:
        raise CannotFit(f"needs two classes, found {len(labels.classes)}")
    if split["groups"] == "ignore":
        positives = int(labels.y.sum())
        n_train, n_test = sizes.sizes(
            len(labels), positives, len(labels) - positives, condition, setting, split
        )
        if "test_set" in setting and recipe["method"]["reads"] == "latents":
            return splits.first_of_each(labels.y, n_train, seed)
        return splits.draw(labels.y, n_train, n_test, condition.ratio, seed)
    return splits.disjoint(
        labels.y, labels.component, labels.split, condition, setting, split, seed
    )


def _shared_groups(
    train: Labels, train_rows: Rows, test: Labels, test_rows: Rows
) -> NDArray[np.bool_] | None:
    """For each test row, whether its group has train rows; None where there are no groups.

    In a test set of its own groups are the same where their names are.
    """
    kind = "group" if test is train else "group_name"
    of_train, of_test = getattr(train, kind), getattr(test, kind)
    if of_train is None or of_test is None:
        return None
    named = [g[rows] for g, rows in ((of_train, train_rows), (of_test, test_rows))]
    if kind == "group_name":
        named = [np.array(["" if g is None else g for g in names], str) for names in named]
        return leakage.repeated(named[0], named[1]) & (named[1] != "")
    return leakage.repeated(named[0], named[1])


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
        own, there = source.labels, other.labels
        self.repeated = leakage.repeated(own.digest[train], there.digest[test])
        self.shared = _shared_groups(own, train, there, test)
        self.cluster = there.component[test]
        self.level = recipe["interval"]["level"]
        if self.method.get("labels") == "shuffled":
            shuffler = np.random.RandomState(self.method.get("seed", seed))
            self.y_train = permute.exchanged(self.y_train, own.component[train], shuffler)
            if len(np.unique(self.y_train)) < 2:
                raise CannotFit("shuffled by whole groups, the train rows have one class only")
        component = own.component[train] if self.rule["groups"] == "disjoint" else None
        self.folds = validation.folds(self.y_train, self.rule, seed, component)
        self.X_train: Any
        self.X_test: Any
        self.X_folds: list[Matrix] | None = None
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
            self.X_test = other.matrix[at_test]

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
        if not np.isfinite(fitted.scores).all():
            raise CannotFit("the fitted probe scores rows with what is no number")
        params = methods.json_params(fitted.params) | self.notes
        params["unconverged"] = fitted.unconverged
        if k is not None:
            params["latents"] = int(self.X_train[:, :k].any(axis=0).sum())
        low, high = intervals.auc_interval(self.y_test, fitted.scores, self.cluster, self.level)
        new = ~self.repeated
        if self.shared is not None:
            new &= ~self.shared
        return {
            "k": k,
            "n_train": len(self.y_train),
            "n_test": len(self.y_test),
            "val_auc": fitted.val_auc,
            **metrics.evaluate(self.y_test, fitted.scores, fitted.predicted),
            "ci_low": low,
            "ci_high": high,
            "converged": fitted.converged,
            "leak_fraction": float(self.repeated.mean()),
            "group_fraction": None if self.shared is None else float(self.shared.mean()),
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
