"""One target to its tidy rows: which conditions it has, and what the row of each says."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Damaged, blamed_on
from actprobe.cache import store
from actprobe.models import rows_begin_with_bos
from actprobe.probes import (
    data,
    extensions,
    leakage,
    metrics,
    needs,
    protocol,
    shares,
    sizes,
    splits,
)
from actprobe.probes.columns import EMPTY
from actprobe.probes.controls import tried
from actprobe.probes.data import Labels
from actprobe.probes.feature_targets import EACH
from actprobe.probes.fits import Fits, Source
from actprobe.probes.kinds import BINARY, ONE_VS_REST
from actprobe.probes.records import AnyFit, FeatureArgs, FeatureTarget, FitArgs, FitTarget
from actprobe.probes.sizes import CannotFit, Condition
from actprobe.probes.sources import features, labelled
from actprobe.probes.splits import Rows, Split

log = logging.getLogger(__name__)

_SAME = 0.5  # share of repeated texts from which a test set is not out of distribution


def rows(target: AnyFit) -> list[dict[str, Any]]:
    """All rows of one probes target: seeds × conditions × k.

    What has no number has a row with its `reason`. Raises BadInput when an input is a tombstone or
    cannot be used, ActprobeError when the protocol changed after planning.
    """
    args = target.args
    recipe = protocol.recipe(protocol.load(args.protocol), target.spec.setting, target.spec.method)
    if keys.spec_key(recipe) != target.spec.recipe:
        raise ActprobeError(f"protocol {args.protocol} changed while the run was going on")
    keys.require_unchanged(
        extensions.used(recipe["method"]["family"]),
        dict(target.spec.extensions or {}),
        "the files of `extensions`",
    )
    place = {k: getattr(args, k) for k in ("dataset", "model", "site", "position", "source")}
    place |= {k: getattr(target.spec, k) for k in ("protocol", "setting", "method")}
    place["key"] = keys.short(target.key)
    found: list[dict[str, Any]] = []
    for more, source, test in _sources(target, recipe):
        for label, own, other in _tasks(source, test, target.spec.labels):
            kind = own.labels.kind
            of_task = {**place, **more, "label": label, "kind": kind}
            of_task["metric"] = metrics.main_metric(kind, recipe.get("select")).name
            name, keeps = getattr(args, "condition", ""), target.spec.keep
            found += _task_rows(own, other, recipe, of_task, name, keeps)
    return found


def _sources(
    target: AnyFit, recipe: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Source, Source | None]]:
    """What is fitted on, and the test set of its own where there is one; with it what its rows say of
    their place. Of features every module may be one."""
    if isinstance(target.args, FeatureArgs):
        yield from _of_features(target, recipe)
    else:
        yield _of_texts(target, recipe)


def _of_features(
    target: FeatureTarget, recipe: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Source, None]]:
    found = features.load(target.args)
    of = labelled.read(target.args, target.spec.table, recipe["split"], found.id)
    if target.spec.columns != EACH:
        yield {"columns": target.args.columns_named}, Source(of, found), None
        return
    for module, columns in found.groups().items():
        yield {"columns": EACH, "site": module}, Source(of, found.some(columns)), None


def _of_texts(
    target: FitTarget, recipe: Mapping[str, Any]
) -> tuple[dict[str, Any], Source, Source | None]:
    args = target.args
    _check_bos(target)
    source = _source(args.texts, args.matrix, recipe)
    left_out = ""
    if args.compare_texts is not None and args.compare_matrix is not None:
        compare, left_out = _compare(args, args.compare_texts, args.compare_matrix, recipe)
        source = replace(source, compare=compare)
    test = None
    if args.test_texts is not None and args.test_matrix is not None:
        test = _source(args.test_texts, args.test_matrix, recipe)
        _check_other(source.labels, test.labels, args)
        test = replace(test, labels=_by_name(source.labels, test.labels, args))
    more: dict[str, Any] = {}
    if args.applied:
        more |= {"test_set": args.test_set, "score_at": args.score_at}
    if "controls" in recipe:
        more["compare_with"] = "" if source.compare is None else args.compare_with
        more["left_out"] = left_out
    return more, source, test


def _tasks(
    source: Source, test: Source | None, labels: str | None
) -> Iterator[tuple[str, Source, Source | None]]:
    """What is fitted: the labels as they are, or with `one_vs_rest` each class against the others."""
    if labels != ONE_VS_REST:
        yield "", source, test
        return
    for number, name in enumerate(source.labels.classes):
        own, other = (
            None if s is None else replace(s, labels=s.labels.against_rest(number))
            for s in (source, test)
        )
        assert own is not None
        yield name, own, other


def _task_rows(
    source: Source, test: Source | None, recipe: Mapping[str, Any], place: Mapping[str, Any],
    name: str, keeps: bool = False,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for seed in recipe["seeds"]:
        labels = kept(source.labels, recipe, seed)
        fixed = {**EMPTY, **place, "seed": seed, "n_unused": labels.n_unused}
        used = replace(source, labels=labels)
        for c in sizes.conditions(recipe["setting"], name):
            with _named({**place, "seed": seed, "condition": c.name}):
                rows = list(_condition(used, test, recipe, c, seed, keeps))
            yield from ({**fixed, "condition": c.name, **row} for row in rows)


def kept(labels: Labels, recipe: Mapping[str, Any], seed: int) -> Labels:
    """The rows that the fits of a seed are split from."""
    if recipe["rows"] == "all":
        return labels
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


def _check_bos(target: FitTarget) -> None:
    """Refuse rows of a causal model without the beginning of sequence that the protocol is about.

    A tokenizer that has no such token leaves nothing out.
    """
    args = target.args
    if protocol.load(args.protocol)["bos"] != "added":
        return
    for path in filter(None, (args.matrix, args.test_matrix)):
        facts = store.read_header(path)["facts"]
        left_out = facts.get("has_bos", True) and rows_begin_with_bos(facts) is False
        if facts.get("causal") and left_out:
            raise BadInput(
                f"{path}: its rows begin with no BOS token, and {target.spec['protocol']} is about "
                f"activations after one; write `prepend_bos: true` in models.{args.model}, use "
                "actprobe-1, or a protocol of your own that extends this one and says `bos: any`"
            )


def _source(texts: str, matrix: str, recipe: Mapping[str, Any]) -> Source:
    labels, x = data.labels(texts), data.matrix(matrix, recipe["method"], recipe["setting"])
    if x.shape[0] != labels.n_rows:
        raise Damaged(f"{matrix}: {x.shape[0]} rows, expected {labels.n_rows} as in {texts}")
    return Source(labels, x, texts, matrix)


def _compare(
    args: FitArgs, texts: str, matrix: str, recipe: Mapping[str, Any]
) -> tuple[NDArray[np.float64] | None, str]:
    """The unit mean difference of the dataset to compare with; where it is a bad input and such are
    skipped, None and the reason."""
    try:
        of = _source(texts, matrix, recipe)
        if len(of.labels.classes) != 2 or len(np.unique(of.labels.y)) != 2:
            raise BadInput(f"{texts}: rows of two classes are needed to compare with")
    except BadInput as e:
        if not args.skips:
            raise
        log.warning("left out %s: %s", args.compare_with, e)
        return None, f"{args.compare_with}: {e}"
    x, y = of.matrix[of.labels.row], of.labels.y
    difference = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    return np.asarray(difference / max(float(np.linalg.norm(difference)), 1e-300), np.float64), ""


def _check_other(train: Labels, test: Labels, args: FitArgs) -> None:
    """Refuse a test set that is the train dataset again."""
    share = float(leakage.repeated(train.digest, test.digest).mean())
    if share > _SAME:
        raise BadInput(
            f"{args.test_texts}: {share:.0%} of its texts are in {args.dataset} as well: "
            "not an out-of-distribution test set"
        )


def _by_name(train: Labels, test: Labels, args: FitArgs) -> Labels:
    """The test set with the train set's class numbers, by the classes' names.

    Wholly different names are taken in their order. Raises BadInput when there are not two, and
    when a name has another number in each set while the other names differ.
    """
    if test.classes == train.classes or len(train.classes) != 2:
        return test
    if train.answers and len(test.classes) == 2:
        return test  # the classes of pairs have no names of their own
    ours, theirs = (", ".join(map(repr, labels.classes)) for labels in (train, test))
    words = f"{args.test_set} has the classes {theirs}, {args.dataset} has {ours}"
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
    source: Source, test: Source | None, recipe: Mapping[str, Any], condition: Condition, seed: int,
    keeps: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The rows of one condition and seed: one, or one for each k.

    Here what was fitted is dropped, but for its numbers and what `keeping` keeps.
    """
    ks = recipe["method"].get("ks", [None])
    try:
        sides = split(source.labels, recipe, condition, seed)
        if test is not None:
            sides = replace(sides, test=np.arange(len(test.labels)))
            _check_test_set(test.labels, recipe)
        fits = Fits(source, test or source, sides, recipe, condition, seed, keeps)
    except CannotFit as e:
        if protocol.tests_elsewhere(recipe):
            raise BadInput(f"tested on {condition.name}: {e}") from e
        yield from ({"k": k, "reason": str(e)} for k in ks)
        return
    for k in ks:
        try:
            fitted, row = fits.fit(k)
            if "controls" in recipe:
                row |= tried.beside(fits, fitted, row["test_score"], recipe["controls"])
        except CannotFit as e:
            row = {"k": k, "reason": str(e)}
        yield row


def _check_test_set(labels: Labels, recipe: Mapping[str, Any]) -> None:
    positives = int(labels.y.sum())
    of_one_class = positives in (0, len(labels)) and not protocol.tests_elsewhere(recipe)
    if labels.kind == BINARY and not of_one_class:  # of one class accuracy is still told
        least = recipe["split"].get("least_test", 1)
        sizes.check_classes(positives, len(labels) - positives, least)


def split(labels: Labels, recipe: Mapping[str, Any], condition: Condition, seed: int) -> Split:
    """The rows of a condition, as places among the labels. Raises CannotFit."""
    split, setting = recipe["split"], recipe["setting"]
    if "kind" in split:
        return shares.draw(labels.y, labels.group, labels.split, split, seed)
    return Split(*_train_and_test(labels, recipe, condition, split, setting, seed))


def _train_and_test(
    labels: Labels, recipe: Mapping[str, Any], condition: Condition, split: Mapping[str, Any],
    setting: Mapping[str, Any], seed: int,
) -> tuple[Rows, None, Rows]:  # fmt: skip
    if labels.kind == BINARY and len(labels.classes) != 2:
        raise CannotFit(needs.two_classes(labels.classes))
    if labels.kind != BINARY and needs.binary_only(recipe):
        raise CannotFit(needs.two_classes(labels.classes))
    if protocol.tests_elsewhere(recipe):
        return np.arange(len(labels)), None, np.empty(0, np.int64)
    if split["groups"] == "ignore":
        positives = int(labels.y.sum())
        n_train, n_test = sizes.sizes(
            len(labels), positives, len(labels) - positives, condition, setting, split
        )
        if "test_set" in setting and recipe["method"]["reads"] == "latents":
            train, test = splits.first_of_each(labels.y, n_train, seed)
        else:
            train, test = splits.draw(labels.y, n_train, n_test, condition.ratio, seed)
        return train, None, test
    train, test = splits.disjoint(
        labels.y, labels.component, labels.split, condition, setting, split, seed, labels.kind
    )
    return train, None, test
