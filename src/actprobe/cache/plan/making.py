"""The walk from the wanted targets down to what the cache holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from actprobe.base.errors import ActprobeError
from actprobe.cache.plan.batching import Batch, batches
from actprobe.cache.plan.cache import DAMAGED, ELSEWHERE, FINISHED, IN_PLACE, MISSING, Cache, State
from actprobe.cache.plan.targets import Target
from actprobe.cache.store import files
from actprobe.config import Config


@dataclass
class Plan:
    """The resolved config, every target with its state, and the batches to run."""

    config: Config
    targets: dict[str, Target]
    wanted: list[str]
    states: dict[str, State]
    pending: dict[str, State]
    batches: list[Batch]

    def of(self, *stages: str) -> list[Batch]:
        """The batches of these stages."""
        return [b for b in self.batches if b.stage in stages]

    def batch(self, output: str) -> Batch:
        """The batch that makes the file at this path."""
        for b in self.batches:
            if output in b.outputs:
                return b
        raise ActprobeError(f"the plan has no batch that makes {output}")

    def in_order(self) -> list[Batch]:
        """The batches, each after those whose outputs it reads."""
        producer = {p: b for b in self.batches for p in b.outputs}
        before = {b.rule: {producer[p].rule for p in b.inputs} for b in self.batches}
        of_rule = {b.rule: b for b in self.batches}
        return [of_rule[rule] for rule in TopologicalSorter(before).static_order()]

    def paths(self, stage: str) -> list[str]:
        """All target paths of a stage, pending or not."""
        return [p for p, t in self.targets.items() if t.stage == stage]


def pending(
    targets: Mapping[str, Target], wanted: Iterable[str], cache: Cache, everything: bool = False
) -> dict[str, State]:
    """Paths that must be made, with their states: the walk from `wanted` down.

    A target that is there stops the walk, so inputs that were deleted to save disk cost nothing
    until something needs them; so does one that only has to be put in place. `everything` treats
    every target as pending (`plan=all`).
    """
    found: dict[str, State] = {}
    stack = list(wanted)
    while stack:
        path = stack.pop()
        if path in found or path not in targets:
            continue
        state = cache.state(targets[path])
        if state.there and not everything:
            continue
        found[path] = State(MISSING, "asked for by plan=all") if state.there else state
        if state.status not in IN_PLACE or everything:
            stack.extend(targets[path].inputs)
    return found


def make(
    config: Config,
    targets: Iterable[Target],
    wanted: Iterable[str],
    everything: bool = False,
) -> Plan:
    """Look the targets up and plan the batches. Reads the cache, changes nothing."""
    by_path: dict[str, Target] = {}
    for t in targets:
        by_path.setdefault(t.path, t)
    wanted = list(dict.fromkeys(wanted))
    cache = Cache()
    if everything:
        wanted = list(by_path)
    todo = pending(by_path, wanted, cache, everything)
    work = (
        replace(by_path[p], inputs=()) if state.status in IN_PLACE else by_path[p]
        for p, state in todo.items()
    )
    states = {p: cache.state(t) for p, t in by_path.items()}
    return Plan(config, by_path, wanted, states, todo, batches(work, config.get("shards", {})))


def take_over(plan: Plan) -> int:
    """Publish parts that interrupted runs had finished, link files that are there under another
    name, set damaged artefacts aside.

    Called by the main process of a real run (never of a dry run). Returns how many artefacts were
    taken over.
    """
    taken, cache = 0, Cache()
    for path, state in plan.states.items():
        if state.status == FINISHED:
            part = files.claim(path)
            if part == files.part_path(path):
                files.publish([path])
                taken += 1
            files.release(part)
        elif state.status == ELSEWHERE and path in plan.pending:
            taken += files.link(state.why, path)
        elif (
            state.status == DAMAGED
            and path in plan.pending
            and cache.state(plan.targets[path]) == state  # no other run has made it anew
        ):
            files.set_aside(path, state.why)
        if path in plan.pending:
            for left in cache.private_parts(path):
                taken += files.adopt(left, path, plan.targets[path].key)
    return taken
