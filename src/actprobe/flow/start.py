"""The start of a run: its plan, made by the main process, and what each job asks Snakemake for."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError
from actprobe.cache.plan import Batch, Plan
from actprobe.config import overridden
from actprobe.experiment import costs, session
from actprobe.experiment.stages import STAGES
from actprobe.flow import internals, place, runs
from actprobe.flow.failures import Failures, says_only_that_a_script_failed

_STATE = Path(".snakemake")
_begun: dict[str, Run] = {}  # by config: a Snakefile is parsed again by each `use rule … with`


@dataclass(frozen=True)
class Run:
    """A run of Snakemake, or one of its jobs: the plan, and what the rules take from it.

    acts: jobs are run, by this process. locks: other runs in this folder are looked for.
    """

    plan: Plan
    acts: bool
    locks: bool
    _gpu: Mapping[str, Any]
    _rule_name: Callable[[str], str]
    _costs: dict[str, costs.Cost] = field(default_factory=dict)

    def enter(self, files: Collection[str]) -> None:
        """Register the run, which makes these files beside the plan's, or end with the name of another
        that is at work on the same ones."""
        if self.acts and self.locks:
            with _said():
                runs.enter(_STATE, made=[*self.plan.pending, *files], read=[*self.plan.targets])

    def needs(self, batch: Batch) -> dict[str, Any]:
        """Resources of a batch's job: twice the memory and time at each further attempt."""
        cost = self._costs[batch.rule]
        resources: dict[str, Any] = {
            "mem_mb": lambda wildcards, attempt: costs.mem_mb(cost, attempt),
            "runtime": lambda wildcards, attempt: costs.runtime(cost, attempt),
        }
        if cost.gpu:
            resources |= {**self._gpu, "gpu": cost.gpu}
        return resources

    def threads(self, batch: Batch) -> int:
        """Threads of a batch's job."""
        stage = STAGES[batch.stage]
        n = self.plan.config["threads"][stage.threads] if stage.threads else 1
        return min(n, len(batch.targets)) if stage.workers else n

    def is_local(self, batch: Batch) -> bool:
        """Whether a batch's job runs beside Snakemake, and not on a compute node."""
        return STAGES[batch.stage].local

    def group(self, batch: Batch) -> str | None:
        """Small jobs of a stage share submissions, except where `shards` asks for many jobs."""
        if not STAGES[batch.stage].grouped or self.plan.config["shards"].get(batch.stage, 1) > 1:
            return None
        small = costs.is_small(self._rule_name(batch.rule), self._costs[batch.rule])
        return f"small_{batch.stage}" if small else None


def begin(config: Mapping[str, Any], workflow: Any) -> Run:
    """The run that this process is, or a part of; `workflow` is Snakemake's.

    Faults of the config, and what is asked for and there already, end the process with a message and
    without Snakemake's lines about the Snakefile.
    """
    name = json.dumps(config, sort_keys=True, default=str)
    if name not in _begun:
        with _said():
            _begun[name] = _begin(config, workflow)
    return _begun[name]


def _begin(config: Mapping[str, Any], workflow: Any) -> Run:
    if _begun:
        raise ActprobeError(
            "two modules of one workflow are actprobe with different configs; a workflow has one plan. "
            "Run one `snakemake` for each, on the same cache if you like"
        )
    internals.require_known()
    settings = workflow.config_settings
    if not settings.configfiles and not {*config} - {*(settings.config or ())}:
        raise ActprobeError(
            "no config/config.yaml in this folder; name a config: "
            "snakemake TARGETS --cores N --configfile mine.yaml"
        )
    _tell_python_where()
    given = internals.command_line() if workflow.is_main_process else None
    args = given[1] if given else None
    acts = given is not None and internals.runs_jobs(*given)
    plan = _plan(config, workflow, args, acts)
    for key in ("cache_dir", "results_dir"):
        if internals.moves(workflow, f"{plan.config[key]}/x"):
            raise ActprobeError(
                f"{key}: a module's `prefix` and `replace_prefix` cannot move these files, whose names "
                f"are in the plan; write `{key}` in the module's config"
            )
    internals.keep(plan.targets)
    if workflow.is_main_process:
        _tell_of_failures()
    resources = workflow.resource_settings.default_resources or {}
    names = {"gpu_partition": "slurm_partition", "gpu_type": "gpu_model"}
    return Run(
        plan,
        acts,
        locks=not getattr(args, "nolock", False),
        _gpu={names[k]: r.raw for k, r in resources.items() if k in names},
        _rule_name=lambda rule: internals.rule_name(workflow, rule),
        _costs=costs.estimates(plan),
    )


def _plan(config: Mapping[str, Any], workflow: Any, args: Any, acts: bool) -> Plan:
    # A module's rules have other names, but a stage is asked for by any name that it has.
    ours = {internals.rule_name(workflow, n): n for n in ("all", *STAGES)}
    asked = [ours.get(str(t), str(t)) for t in getattr(args, "targets", None) or ()]
    asked = [t for t in asked if t != "all"]
    plan = session.begin(
        overridden(config, getattr(args, "config", None) or ()),
        main=workflow.is_main_process,
        acts=acts,
        asked=asked,
        quiet=bool(getattr(args, "lint", False)),
    )
    forced = args is not None and (args.forceall or args.force or args.forcerun)
    if plan.config["plan"] == "all" and acts and not forced:
        raise ActprobeError(
            "plan=all shows the whole graph (--rulegraph, --report, --summary, -n) or, with "
            "--forceall, makes everything again; a plain run needs no plan=all"
        )
    there = session.already_there(plan, asked)
    if there and len(there) == len(asked):
        print(f"there already, nothing to compute: {', '.join(there)}", file=sys.stderr)
        raise SystemExit(0)
    if there:
        raise ActprobeError(f"there already, do not ask for it: {', '.join(there)}")
    if acts:
        from actprobe.exchange import upload

        upload.follow(plan)
    return plan


def _tell_python_where() -> None:
    """Let scripts in a conda environment or a container, which hold no actprobe, find this one."""
    folder = str(place.import_folder(_STATE / "actprobe"))
    others = [
        p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", folder)
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *others])


def _tell_of_failures() -> None:
    """Say at the end of the run once more which jobs failed, and why."""
    from snakemake.logging import logger

    failures, owner = Failures(), os.getpid()

    def tell() -> None:
        if os.getpid() == owner and (words := failures.summary()):
            print(words, file=sys.stderr)

    atexit.register(tell)
    logger.addHandler(failures)
    logger.addFilter(lambda record: not says_only_that_a_script_failed(record))


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """A block whose ActprobeError ends the process with its message alone."""
    try:
        yield
    except ActprobeError as e:
        print(f"actprobe: {e}", file=sys.stderr)
        raise SystemExit(1) from None
