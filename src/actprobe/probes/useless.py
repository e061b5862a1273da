"""Datasets of which no fit can have a number: known from their texts, before a model reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from actprobe.cache.plan import Target
from actprobe.probes.needs import Requirement, requirements, unfit
from actprobe.probes.records import FitTarget


def without_models(found: Iterable[FitTarget], texts: Iterable[Target]) -> list[FitTarget]:
    """The same targets; those of a dataset that suits none of its fits read its texts alone.

    They get `args.unfit`, the reason, and `args.spared`, the paths that they would have read.
    A dataset that suits some fits keeps all: the tables show the others with their reasons.
    """
    facts = {t.path: t.args.facts for t in texts}
    of_dataset: dict[str, list[FitTarget]] = defaultdict(list)
    for t in found:
        of_dataset[t.item].append(t)
    made: list[FitTarget] = []
    for targets in of_dataset.values():
        reasons = [reason for t in targets if (reason := _reason(t, facts))]
        of_use = len(reasons) < len(targets)
        made += targets if of_use else map(_spare, targets, reasons)
    return made


def _reason(t: FitTarget, facts: Mapping[str, Mapping | None]) -> str | None:
    of = facts.get(t.args.texts)
    if not of or t.spec.labels is not None:
        return None  # not read yet, or a task for each class
    if test := facts.get(t.args.test_texts or ""):
        of = {**of, "test": test}
    return unfit(_needed(t.args.protocol, t.spec.setting, t.spec.method), of)


@cache
def _needed(protocol: str, setting: str, method: str) -> tuple[Requirement, ...]:
    return requirements(protocol, [setting], [method])


def _spare(t: FitTarget, reason: str) -> FitTarget:
    read = tuple(p for p in (t.args.texts, t.args.test_texts) if p is not None)
    spared = tuple(p for p in t.inputs if p not in read)
    args = replace(t.args, unfit=f"dataset {t.item}: {reason}", spared=spared)
    return replace(t, inputs=read, args=args)
