"""The plan of this run, made by the main process and read by the jobs. No rules here.

REQUIRED INPUTS: the config.
OUTPUTS: PLAN (batches per stage), CONFIG (resolved), RESULTS and CONTRASTIVE (files of
the reports), FINAL; needs() and group_of(), what a batch's job asks of a cluster.
"""

import os
import sys
from pathlib import Path

from snakemake.cli import parse_args
from snakemake.io import _IOFile
from snakemake.logging import logger

from actprobe import contrastive, costs, results, runs, session, wandb
from actprobe.config import overridden, plain
from actprobe.errors import ActprobeError
from actprobe.experiment import STAGES
from actprobe.failures import Failures, says_only_that_a_script_failed


def command_line():
    """The options of this command with profiles applied; None in jobs and under the API."""
    try:
        return parse_args(sys.argv[1:])[1]
    except SystemExit:
        return None


def really_runs(args):
    """True when jobs will be run: not for dry runs, graphs, reports, lists and the like."""
    looks = "dryrun touch lint unlock report list_rules list_target_rules list_untracked dag"
    looks += " rulegraph filegraph d3dag summary detailed_summary print_compilation list_changes"
    looks += (
        " delete_all_output delete_temp_output containerize archive cleanup_metadata"
    )
    return args is not None and not any(
        getattr(args, name, False) for name in looks.split()
    )


def refuse(message):
    """End with a message for the user, without Snakemake's lines about the Snakefile."""
    print(f"actprobe: {message}", file=sys.stderr)
    raise SystemExit(1)


def begin():
    """The plan; errors of the config become messages without a traceback."""
    args = ARGS
    asked = [str(t) for t in getattr(args, "targets", None) or () if str(t) != "all"]
    forced = args is not None and (args.forceall or args.force or args.forcerun)
    try:
        plan = session.begin(
            overridden(config, getattr(args, "config", None) or ()),
            main=workflow.is_main_process,
            acts=really_runs(args),
            asked=asked,
            quiet=bool(getattr(args, "lint", False)),
        )
    except ActprobeError as e:
        refuse(e)
    if plan.config["plan"] == "all" and really_runs(args) and not forced:
        refuse(
            "plan=all shows the whole graph (--rulegraph, --report, --summary, -n) or, with "
            "--forceall, makes everything again; a plain run needs no plan=all"
        )
    there = session.already_there(plan, asked)
    if there and len(there) == len(asked):
        print(f"there already, nothing to compute: {', '.join(there)}", file=sys.stderr)
        raise SystemExit(0)
    if there:
        refuse(f"there already, do not ask for it: {', '.join(there)}")
    if really_runs(args):
        wandb.follow(plan)
    return plan


def keep(paths):
    """Make Snakemake leave these files alone: only `actprobe gc` deletes a cached file.

    Snakemake deletes a job's outputs before the job starts, and after it failed. An artefact is
    whole or absent, and one that appeared after the plan belongs to another run on the same cache.
    """
    remove = _IOFile.remove

    async def spare(self, *args, **kwargs):
        if str(self) not in paths:
            await remove(self, *args, **kwargs)

    _IOFile.remove = spare


# Scripts in a conda environment or a container, which hold no actprobe, find this one.
PYTHONPATH = [os.path.join(workflow.basedir, "src"), os.environ.get("PYTHONPATH", "")]
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, PYTHONPATH)))
ARGS = command_line() if workflow.is_main_process else None
PLAN = begin()
keep(PLAN.targets)
CONFIG = PLAN.config
RESULTS = results.outputs(CONFIG)
CONTRASTIVE = contrastive.outputs(CONFIG)
PAGES = [wandb.page(CONFIG, path) for path in PLAN.paths("top_contexts")]
APPLIED = contrastive.paths(PLAN)  # fits that are tested on other datasets
DIRECTIONS = [p for of in CONTRASTIVE.values() for p in of.values()] if APPLIED else []
# What the report reads is made on the way to it.
FINAL = (
    [p for of in RESULTS.values() for p in of.values()] if PLAN.paths("probes") else []
)
FINAL += DIRECTIONS
FINAL += [p for p in PLAN.wanted if PLAN.targets[p].stage not in {"texts", "probes"}]
FINAL = FINAL + PAGES or PLAN.wanted
if really_runs(ARGS) and not ARGS.nolock:
    try:
        runs.enter(
            Path(".snakemake"), made=[*PLAN.pending, *FINAL], read=[*PLAN.targets]
        )
    except ActprobeError as e:
        refuse(e)
# What tables, figures and report depend on: a change of memory or threads is no reason to redraw.
REPORTED = {
    k: v
    for k, v in plain(CONFIG).items()
    if k not in ("max_memory", "threads", "shards", "scratch")
}
FAILURES = Failures()
if workflow.is_main_process:
    logger.addHandler(FAILURES)
logger.addFilter(lambda record: not says_only_that_a_script_failed(record))


onerror:
    print(FAILURES.summary(), file=sys.stderr)


COSTS = costs.estimates(PLAN)


def needs(batch):
    """Resources of a batch's job: twice the memory and time at each further attempt."""
    cost = COSTS[batch.rule]
    resources = {
        "mem_mb": lambda wildcards, attempt: costs.mem_mb(cost, attempt),
        "runtime": lambda wildcards, attempt: costs.runtime(cost, attempt),
    }
    if cost.gpu:
        given = workflow.resource_settings.default_resources or {}
        names = {"gpu_partition": "slurm_partition", "gpu_type": "gpu_model"}
        resources |= {names[k]: r.raw for k, r in given.items() if k in names}
        resources["gpu"] = cost.gpu
    return resources


def group_of(batch):
    """Small jobs of a stage share submissions, except where `shards` asks for many jobs."""
    sharded = CONFIG["shards"].get(batch.stage, 1) > 1
    small = costs.is_small(batch.rule, COSTS[batch.rule]) and not sharded
    return f"small_{batch.stage}" if small else None
