"""From `apply_to` of an entry of `probes` to evaluations: one per fit file and collection."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.cache import plan
from actprobe.cache.plan import Record, Target
from actprobe.config import matching
from actprobe.probes import extensions
from actprobe.probes import protocol as protocols
from actprobe.probes.evaluations import classes
from actprobe.probes.records import FitTarget
from actprobe.texts.records import TextSpec

log = logging.getLogger(__name__)

STAGE = "evaluations"
VERSION = 2

Matrices = Mapping[str, Mapping[str, list[Target]]]  # source -> dataset -> artefacts


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec(Record):
    """What decides an evaluation: the fit by its key, the collection by what is in it and by its numbers
    (None where it is the fit's own one, of which the scores of the test rows are kept), how two classes
    are matched, and files of `extensions` by digest."""

    fit: str
    texts: str
    matrix: str | None = None
    by_number: bool
    extensions: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationArgs(Record):
    """Paths of the fit, of the collection and of what the fit was trained on; protocol: its name or
    file; setting, method: of the fit."""

    fit: str
    protocol: str
    setting: str
    method: str
    collection: str
    texts: str
    matrix: str | None = None
    train_texts: str
    train_matrix: str


EvaluationTarget = Target[EvaluationSpec, EvaluationArgs]


def targets(
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    fits: Iterable[FitTarget],
    texts: Mapping[str, Target],
    kinds: Mapping[str, Matrices],
    where: str,
) -> Iterator[EvaluationTarget]:
    """The evaluations of the fits of an entry whose protocol tests on rows of the dataset itself.

    texts: by dataset; kinds: matrices by kind of source. Each fit is tried on the collections of
    `apply_to` that have its source, and on the test rows of its own. Raises ConfigError for a
    collection that does not exist or has none of the sources, for one that is named and has other
    labels, and for fits that are not kept. A pattern stands for the collections that suit a fit.
    """
    chosen = matching(entry["apply_to"], texts, f"{where}.apply_to", "dataset")
    named = {name for name in chosen if name in entry["apply_to"]}
    differ: dict[str, str] = {}
    missing, tried = dict.fromkeys(chosen), 0
    for fit in fits:
        if not fit.spec.keep:
            raise ConfigError(
                f"{where}: apply_to needs fits that are kept, and those of setting "
                f"{fit.spec.setting} are not; write `keep: [{fit.spec.setting}]`"
            )
        of = _of_source(fit, kinds)
        for name in dict.fromkeys([fit.item, *chosen]):
            if name not in of:
                continue
            missing.pop(name, None)
            if name != fit.item:
                try:
                    _check(texts[fit.item], texts[name])
                except classes.Differ as e:
                    differ[name] = f"{name} {e} ({fit.item})"
                    continue
                tried += 1
            yield _target(config, entry, fit, name, texts, of, where)
    if missing:
        raise ConfigError(
            f"{where}.apply_to: none of the sources is computed for {', '.join(missing)}"
        )
    for name, words in differ.items():
        if name in named or not tried:
            raise ConfigError(
                f"{where}.apply_to: {words}; classes are matched by name: name those of both in the "
                "same way, or choose class 1 of both with `positive`"
            )
        log.info("%s.apply_to: left out %s", where, words)


def _of_source(fit: FitTarget, kinds: Mapping[str, Matrices]) -> Mapping[str, list[Target]]:
    """The matrices of a fit's source by dataset."""
    for of in kinds.values():
        found = of.get(fit.args.source, {})
        if any(t.path == fit.args.matrix for t in found.get(fit.item, ())):
            return found
    raise AssertionError(fit.path)


def _check(train: Target, tried: Target) -> None:
    ours, theirs = train.args.facts, tried.args.facts
    if ours and theirs:  # else the job knows
        classes.of_facts(ours, theirs, _by_number(train, tried))


def _by_number(train: Target, tried: Target) -> bool:
    """Whether two classes are matched by their numbers (`classes.numbers`)."""
    specs = [t.spec for t in (train, tried)]
    pairs = any(isinstance(s, TextSpec) and s.answers for s in specs)
    return pairs or all(s.positive is not None for s in specs)


def _target(
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    fit: FitTarget,
    name: str,
    texts: Mapping[str, Target],
    of: Mapping[str, list[Target]],
    where: str,
) -> EvaluationTarget:
    own = name == fit.item
    matrix = None if own else plan.only(of[name], where)
    train = plan.only(of[fit.item], where)
    method, setting = fit.spec.method, fit.spec.setting
    how = protocols.load(entry["protocol"])["methods"][method]
    inputs = [fit, texts[name], texts[fit.item]]
    if matrix is not None:
        inputs.append(matrix)
        if how["family"] == "knn":
            inputs.append(train)
    return plan.target(
        config["cache_dir"],
        STAGE,
        VERSION,
        f"{fit.name}@{name}",
        EvaluationSpec(
            fit=fit.key,
            texts=texts[name].identity,
            matrix=None if matrix is None else matrix.identity,
            by_number=_by_number(texts[fit.item], texts[name]),
            extensions=extensions.used(how["family"]) or None,
        ),
        loader=fit.loader,
        item=name,
        inputs=inputs,
        args=EvaluationArgs(
            fit=fit.path,
            protocol=entry["protocol"],
            setting=setting,
            method=method,
            collection=name,
            texts=texts[name].path,
            matrix=None if matrix is None else matrix.path,
            train_texts=texts[fit.item].path,
            train_matrix=train.path,
        ),
        ext="parquet",
        cost=0.1,
    )
