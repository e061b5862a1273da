"""Pending targets joined into rule instances, one per thing that is expensive to load."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from actprobe.cache.plan.targets import Target


@dataclass(frozen=True)
class Batch:
    """One rule instance: the pending targets that one load covers.

    inputs: one output of every batch that must run before this one. That is all Snakemake needs
    to order the jobs; listing every file would make a large graph slow. A job waits itself for the
    files it reads (`jobs.load`).
    """

    rule: str
    stage: str
    loader: str
    targets: tuple[Target, ...]
    inputs: tuple[str, ...] = ()

    @property
    def outputs(self) -> list[str]:
        return [t.path for t in self.targets]

    @property
    def cost(self) -> float:
        return sum(t.cost for t in self.targets)


def batches(pending_targets: Iterable[Target], shards: Mapping[str, int]) -> list[Batch]:
    """Join pending targets by (stage, loader) and split each into `shards[stage]` equal costs.

    The result is a pure function of its arguments: independent of the order of the targets.
    """
    groups: dict[tuple[str, str], list[Target]] = defaultdict(list)
    for t in pending_targets:
        groups[t.stage, t.loader].append(t)
    result = []
    for (stage, loader), members in sorted(groups.items()):
        parts = _split(members, shards.get(stage, 1))
        for n, part in enumerate(parts, 1):
            rule = re.sub(r"\W", "_", f"{stage}_{loader}") + (f"_{n}" if len(parts) > 1 else "")
            ordered = tuple(sorted(part, key=lambda t: t.path))
            result.append(Batch(rule, stage, loader, ordered))
    _unique_rules(result)
    return _ordered(result)


def _ordered(result: list[Batch]) -> list[Batch]:
    """The batches with their inputs: the first output of each batch whose outputs they read."""
    producer = {p: i for i, b in enumerate(result) for p in b.outputs}
    ordered = []
    for b in result:
        before = sorted({producer[p] for t in b.targets for p in t.inputs if p in producer})
        ordered.append(replace(b, inputs=tuple(result[i].outputs[0] for i in before)))
    return ordered


def _unique_rules(result: list[Batch]) -> None:
    """Two loaders may fold into one rule name ("a-b", "a.b"): number the later ones."""
    taken: set[str] = set()
    for i, b in enumerate(result):
        rule, n = b.rule, 2
        while rule in taken:
            rule, n = f"{b.rule}_v{n}", n + 1
        taken.add(rule)
        result[i] = replace(b, rule=rule)


def _split(members: Sequence[Target], shards: int) -> list[list[Target]]:
    """Items go, largest first, to the shard with the least cost so far."""
    items: dict[str, list[Target]] = defaultdict(list)
    for t in members:
        items[t.item].append(t)
    weight = {i: sum(t.cost for t in ts) for i, ts in items.items()}
    parts: list[list[Target]] = [[] for _ in range(max(1, min(shards, len(items))))]
    loads = [0.0] * len(parts)
    for item in sorted(items, key=lambda i: (-weight[i], i)):
        lightest = loads.index(min(loads))
        parts[lightest] += items[item]
        loads[lightest] += weight[item]
    return parts
