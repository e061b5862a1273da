"""The job that computes primitive families: each shard of LoRAs is read once for all of them."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.lora import collection, index, tables
from actprobe.lora.collection import Member
from actprobe.lora.compute import columns, primitives, units
from actprobe.lora.index import Index
from actprobe.lora.records import PrimitivesTarget, Sketch
from actprobe.lora.rows import reader

log = logging.getLogger(__name__)

BLOCK_BYTES = 24_000_000  # weights that are held at once
REASON = 200  # bytes of a reason that are kept


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Compute the families of every shard of the batch, shard by shard."""
    _keep_freed_memory()
    shards: dict[tuple[str, str, str], list[PrimitivesTarget]] = defaultdict(list)
    for t in batch.targets:
        shards[t.args.collection, t.args.shard, t.inputs[0]].append(t)
    loaded: dict[str, Index] = {}
    listed: dict[str, dict[str, Member]] = {}
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        for (name, shard, path), targets in sorted(shards.items()):
            options = config["loras"][name]
            with out.guard(*targets):
                if path not in loaded:
                    loaded[path] = Index.open(path)
                    listed[name] = {m.id: m for m in collection.members(name, options)}
                _shard(targets, shard, loaded[path], listed[name], options, out)


def _keep_freed_memory() -> None:
    """Stop glibc from giving freed blocks back to the system: a fifth of the time went there.

    It returns what is freed above a threshold that grows with the largest block ever freed.
    """
    np.empty(31 << 20, np.uint8)


def _shard(
    targets: list[PrimitivesTarget],
    shard: str,
    found: Index,
    members: Mapping[str, Member],
    options: Mapping[str, Any],
    out: Outcome,
) -> None:
    rows = shard_rows(found, shard, bool(options.get("tables")))
    modules, pieces = _modules(found, rows), blocks(found, rows)
    sizes = Sketch.of(options)
    with ExitStack() as stack:
        parts = {}
        for t in targets:
            family = t.spec.family
            facts: dict[str, Any] = {
                "modules": modules,
                "columns": columns(family, sizes),
                "ids": ids(found, rows),
            }
            shape = len(rows), len(units(family, modules)), len(facts["columns"])
            arrays: dict[str, Any] = {
                "x": (shape, "f4"), "mask": (shape[:2], "u1"), "reason": ((len(rows),), f"S{REASON}")
            }  # fmt: skip
            parts[family] = stack.enter_context(
                store.Part(t.path, t.record, arrays, len(pieces), facts)
            )
        pending = sorted({b for p in parts.values() for b in p.pending})
        read = reader(members, options)
        began = time.monotonic()
        done = 0
        for n, b in enumerate(pending, 1):
            todo = [f for f, p in parts.items() if b in p.pending]
            at = pieces[b]
            loras = read(found, rows[at])
            usable = [i for i, x in enumerate(loras) if not isinstance(x, str)]
            readable: Any = [loras[i] for i in usable]
            computed: Any = primitives(readable, modules, todo, sizes)
            reasons = [x.encode()[:REASON] if isinstance(x, str) else b"" for x in loras]
            for f in todo:
                for key, values in zip(("x", "mask"), computed[f], strict=True):
                    whole = np.zeros((len(loras), *values.shape[1:]), values.dtype)
                    whole[usable] = values
                    parts[f][key][at] = whole
                parts[f]["reason"][at] = np.array(reasons, f"S{REASON}")
                parts[f].mark(b)
            done += len(loras)
            rate = done / max(time.monotonic() - began, 1e-9)
            if n == len(pending) or n % 16 == 0:
                log.info("shard %s: block %d of %d, %.0f LoRAs/s", shard, n, len(pending), rate)
        for t in targets:
            out.done(t, parts[t.spec.family].finish())


def shard_rows(found: Index, shard: str, of_table: bool) -> NDArray[np.int64]:
    """Rows of the index in a shard that can be read, in order."""
    if of_table:
        inside = found["member"] == shard
    else:
        bits = "" if shard == "all" else shard
        inside = np.array([p.startswith(bits) for p in found.places], bool)
    return np.flatnonzero(inside & (found["reason"] == ""))


def ids(found: Index, rows: NDArray[np.int64]) -> str:
    """Digest of the ids of these rows, to tell that two files speak of the same LoRAs."""
    return hashlib.sha256("\n".join(found["id"][rows]).encode()).hexdigest()


def _modules(found: Index, rows: NDArray[np.int64]) -> list[str]:
    """Names of the modules that any of these LoRAs has."""
    present: Any = found.present()[rows].any(axis=0)
    return [m for m, p in zip(found.modules, present, strict=True) if p]


def blocks(found: Index, rows: NDArray[np.int64]) -> list[slice]:
    """Slices of `rows` whose weights are held at once."""
    largest = int(found["bytes"][rows].max(initial=1))
    step = max(1, min(tables.ROWS, BLOCK_BYTES // largest))
    return [slice(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]


def stop_at_bad(part: store.Part, name: str, options: Mapping[str, Any]) -> None:
    """Raise BadInput under `on_bad_file: stop` when weights of a collection cannot be used.

    part: features, not sealed yet. Primitives never raise: both settings share them.
    """
    reasons = part["reason"][:]
    bad = [f"{part['id'][i].decode()}: {reasons[i].decode(errors='ignore')}"
           for i in np.flatnonzero(reasons)]  # fmt: skip
    index.stop(name, bad, options)
