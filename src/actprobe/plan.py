"""The plan: which targets are there, missing or stale, and which jobs make what is needed.

Planning compares wanted keys with the cache: what is stale is a file that does not exist under its
new key. The walk goes from the wanted targets down and stops at what is there. Pending targets are
joined into batches, one per thing that is expensive to load, whose outputs are exactly the pending
files. A plan is made once, by the main process, and handed to the job processes as a JSON file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actprobe import keys
from actprobe.errors import ActprobeError, Damaged
from actprobe.store import files, header


@dataclass(frozen=True)
class Target:
    """One artefact that a config asks for.

    stage: the room that makes it ("activations"); loader: what one job loads once for all its
    targets (a model, an SAE); item: what that is applied to (a dataset): targets of one item stay
    in one shard. name: readable path below the stage's folder, without key and extension.
    spec: everything that determines the content (its hash is the key); args: how to make it where
    that does not change the content (paths, devices). inputs: paths of upstream artefacts.
    cost: expected work in the stage's own unit, to balance shards. raw: an outside file kept as it
    is; its key is the SHA-256 of its bytes, and it has no header.
    """

    stage: str
    loader: str
    item: str
    name: str
    path: str
    key: str
    spec: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    raw: bool = False


def target(
    cache_dir: str | Path,
    stage: str,
    version: int,
    name: str,
    params: Mapping[str, Any],
    *,
    loader: str,
    item: str,
    inputs: Iterable[Target] = (),
    args: Mapping[str, Any] | None = None,
    ext: str = "h5",
    cost: float = 1.0,
) -> Target:
    """A target whose key is the hash of stage, version and params.

    `params` must hold the keys of the upstream artefacts it depends on; `inputs` only says which
    files must be there.
    """
    spec = {"stage": stage, "version": version, **params}
    key = keys.spec_key(spec)
    path = f"{cache_dir}/{stage}/{name}.{keys.short(key)}.{ext}"
    paths = tuple(dict.fromkeys(t.path for t in inputs))
    return Target(stage, loader, item, name, path, key, spec, paths, dict(args or {}), cost)


THERE, FINISHED, MISSING, STALE, DAMAGED = "there", "finished", "missing", "stale", "damaged"


@dataclass(frozen=True)
class State:
    """What the cache holds for a target: `status` is one of the words above, `why` the words.

    For a target that is there, `why` is empty, or the reason why it is a tombstone.
    """

    status: str
    why: str = ""

    @property
    def there(self) -> bool:
        return self.status == THERE


class Cache:
    """Looks targets up in the cache; one directory listing per folder, kept for the plan."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}
        self._states: dict[str, State] = {}

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Artefact files of a folder: base name without key and extension -> file names."""
        if folder not in self._folders:
            found: dict[str, list[str]] = defaultdict(list)
            try:
                for entry in os.scandir(folder):
                    found[entry.name.rsplit(".", 2)[0]].append(entry.name)
            except OSError:
                pass
            self._folders[folder] = found
        return self._folders[folder]

    def state(self, t: Target) -> State:
        """The target's state; cheap checks only (existence, header, length)."""
        if t.path not in self._states:
            self._states[t.path] = self._look(t)
        return self._states[t.path]

    def _look(self, t: Target) -> State:
        folder, name = os.path.split(t.path)
        siblings = self._names(folder).get(name.rsplit(".", 2)[0], ())
        if name in siblings:
            if t.raw:
                return _raw_state(t)
            try:
                return State(THERE, header.quick_check(t.path, t.key)["bad"] or "")
            except Damaged as e:
                return State(DAMAGED, str(e).partition(": ")[2])
            except FileNotFoundError:
                pass
        if t.raw and os.path.exists(f"{t.path}.verified"):
            return State(FINISHED)
        if not t.raw and os.path.exists(files.part_path(t.path)):
            if files.finished_part(t.path, t.key):
                return State(FINISHED)
            return State(MISSING, "begun by an earlier run, will be resumed")
        old = [f"{folder}/{s}" for s in siblings if s != name and s.endswith(Path(name).suffix)]
        if old and not t.raw:
            return State(STALE, explain(t, max(old, key=_mtime)))
        return State(MISSING)


def _raw_state(t: Target) -> State:
    """A raw file has no header; its length is what can be checked cheaply, where it is known."""
    size, expected = os.path.getsize(t.path), t.args.get("size")
    if expected is not None and size != expected:
        return State(DAMAGED, f"{size} bytes, expected {expected}")
    return State(THERE)


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def explain(t: Target, old: str) -> str:
    """In words, which part of the target's spec differs from the one inside the file `old`."""
    try:
        before = header.read_header(old)["spec"]
    except (Damaged, OSError):
        return "the older file cannot be read"
    changes = list(_differences(before, t.spec, ""))
    return "; ".join(changes[:3]) + ("; …" if len(changes) > 3 else "") or "spec changed"


def _differences(a: Any, b: Any, path: str) -> Iterable[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for k in sorted({*a, *b}):
            yield from _differences(a.get(k), b.get(k), f"{path}.{k}" if path else k)
    elif a != b:
        label = "stage version" if path == "version" else path
        if _is_digest(a) and _is_digest(b) and len(a) == 64:
            yield f"{label} changed"
        else:
            yield f"{label} {_word(a)} → {_word(b)}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12,}", value) is not None


def _word(value: Any) -> str:
    text = value[:8] if _is_digest(value) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"


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
        if state.status != FINISHED or everything:
            stack.extend(targets[path].inputs)
    return found


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


@dataclass
class Plan:
    """The resolved config, every target with its state, and the batches to run."""

    config: dict[str, Any]
    targets: dict[str, Target]
    wanted: list[str]
    states: dict[str, State]
    pending: dict[str, State]
    batches: list[Batch]

    def of(self, stage: str) -> list[Batch]:
        """The batches of one stage."""
        return [b for b in self.batches if b.stage == stage]

    def batch(self, rule: str) -> Batch:
        """The batch that the rule of this name runs."""
        for b in self.batches:
            if b.rule == rule:
                return b
        raise ActprobeError(f"the plan has no batch for rule {rule}")

    def paths(self, stage: str) -> list[str]:
        """All target paths of a stage, pending or not."""
        return [p for p, t in self.targets.items() if t.stage == stage]


def make(
    config: dict[str, Any],
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
        replace(by_path[p], inputs=()) if state.status == FINISHED else by_path[p]
        for p, state in todo.items()
    )
    states = {p: cache.state(t) for p, t in by_path.items()}
    return Plan(config, by_path, wanted, states, todo, batches(work, config.get("shards", {})))


def take_over(plan: Plan) -> int:
    """Publish parts that an interrupted run had finished, set damaged artefacts aside.

    Called by the main process of a real run (never of a dry run). Returns how many artefacts were
    taken over.
    """
    taken = 0
    for path, state in plan.states.items():
        if state.status == FINISHED and plan.targets[path].raw:
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                os.replace(f"{path}.verified", path)
            taken += 1
        elif state.status == FINISHED and files.claim(path) == files.part_path(path):
            files.publish([path])
            taken += 1
        elif state.status == DAMAGED and path in plan.pending:
            files.set_aside(path, state.why)
    return taken


def freeze(plan: Plan, folder: str | Path) -> Path:
    """Write the plan to a new file in `folder` for the job processes; returns its absolute path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"plan-{os.getpid()}-{os.urandom(4).hex()}.json").absolute()
    content = {
        "config": plan.config,
        "batches": [{**vars(b), "targets": [vars(t) for t in b.targets]} for b in plan.batches],
        "paths": {t.path: t.stage for t in plan.targets.values()},
        "wanted": plan.wanted,
    }
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(content))
    os.replace(part, path)
    return path


def thaw(path: str | Path) -> Plan:
    """The plan written by `freeze`, as the jobs see it: pending targets only, no states.

    Raises ActprobeError when the file is not there or not readable: a job never plans again, since
    its answer could differ from the main process's.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as e:
        raise ActprobeError(
            f"the frozen plan {path} cannot be read ({e}); jobs are started by snakemake, and the "
            "folder .snakemake must be on a file system that every node sees"
        ) from e
    made = []
    for b in content["batches"]:
        ts = tuple(Target(**{**t, "inputs": tuple(t["inputs"])}) for t in b.pop("targets"))
        made.append(Batch(**{**b, "targets": ts, "inputs": tuple(b["inputs"])}))
    planned = {t.path: t for b in made for t in b.targets}
    by_path = {
        p: planned.get(p) or Target(stage, "", "", "", p, "", {})
        for p, stage in content["paths"].items()
    }
    states = {p: State(MISSING) for b in made for p in b.outputs}
    return Plan(content["config"], by_path, content["wanted"], {}, states, made)
