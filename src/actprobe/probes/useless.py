"""Datasets of which no fit can have a number: known from their texts, before a model reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from actprobe.plan import Target
from actprobe.probes.needs import Requirement, requirements, unfit


def without_models(found: Iterable[Target], texts: Iterable[Target]) -> list[Target]:
    """The same targets; those of a dataset that suits none of its fits read its texts alone.

    They get `args["unfit"]`, the reason, and `args["spared"]`, the paths that they would have read.
    A dataset that suits some fits keeps all: the tables show the others with their reasons.
    """
    facts = {t.path: t.args.facts for t in texts}
    of_dataset: dict[str, list[Target]] = defaultdict(list)
    for t in found:
        of_dataset[t.item].append(t)
    made: list[Target] = []
    for targets in of_dataset.values():
        reasons = [reason for t in targets if (reason := _reason(t, facts))]
        of_use = len(reasons) < len(targets)
        made += targets if of_use else map(_spare, targets, reasons)
    return made


def _reason(t: Target, facts: Mapping[str, Mapping | None]) -> str | None:
    of = facts.get(t.args["texts"])
    if not of or "labels" in t.spec:
        return None  # not read yet, or a task for each class
    if test := facts.get(t.args.get("test_texts", "")):
        of = {**of, "test": test}
    return unfit(_needed(t.args["protocol"], t.spec["setting"], t.spec["method"]), of)


@cache
def _needed(protocol: str, setting: str, method: str) -> tuple[Requirement, ...]:
    return requirements(protocol, [setting], [method])


def _spare(t: Target, reason: str) -> Target:
    read = [t.args[role] for role in ("texts", "test_texts") if role in t.args]
    spared = [p for p in t.inputs if p not in read]
    args = {**t.args, "unfit": f"dataset {t.item}: {reason}", "spared": spared}
    return replace(t, inputs=tuple(read), args=args)
