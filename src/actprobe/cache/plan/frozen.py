"""A plan as a JSON file: made once by the main process, read by the job processes."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from actprobe import config as configuration
from actprobe.base.errors import ActprobeError
from actprobe.cache.plan.batching import Batch
from actprobe.cache.plan.cache import MISSING, State
from actprobe.cache.plan.making import Plan
from actprobe.cache.plan.records import Nothing, Record, build, name_of, plain, type_of
from actprobe.cache.plan.targets import Target


def freeze(plan: Plan, folder: str | Path) -> Path:
    """Write the plan to a new file in `folder` for the job processes; returns its absolute path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"plan-{os.getpid()}-{os.urandom(4).hex()}.json").absolute()
    content = {
        "config": configuration.plain(plan.config),
        "complete": isinstance(plan.config, configuration.Config),
        "batches": [{**vars(b), "targets": [_frozen(t) for t in b.targets]} for b in plan.batches],
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
        ts = tuple(map(_thawed, b.pop("targets")))
        made.append(Batch(**{**b, "targets": ts, "inputs": tuple(b["inputs"])}))
    planned = {t.path: t for b in made for t in b.targets}
    by_path = {
        p: planned.get(p) or Target(stage, "", "", "", p, "", Nothing())
        for p, stage in content["paths"].items()
    }
    states = {p: State(MISSING) for b in made for p in b.outputs}
    config = content["config"]
    if content["complete"]:  # always, once every test plans with a whole config
        config = configuration.Config.model_validate(config)
    return Plan(config, by_path, content["wanted"], {}, states, made)


_TYPED = ("spec", "args")


def _frozen(t: Target[Any, Any]) -> dict[str, Any]:
    """A target as JSON. The types of its spec and args go along, so that a job imports no other room."""
    found = {f.name: getattr(t, f.name) for f in fields(t)}
    kinds = {k: name_of(type(found[k])) for k in _TYPED if isinstance(found[k], Record)}
    return found | {k: plain(found[k]) for k in _TYPED} | {"types": kinds}


def _thawed(t: dict[str, Any]) -> Target[Any, Any]:
    kinds = t.pop("types")
    typed = {k: build(type_of(kinds[k]), t[k]) for k in kinds}
    return Target(**{**t, **typed, "inputs": tuple(t["inputs"])})
