"""What Snakemake does not offer officially, all of it, and the check that it is as it is known here.

Four things: the options of the command line while the Snakefile is parsed; whether these options lead to
jobs; keeping cached files from being deleted; and how a module that uses this workflow has changed names
and paths. `require_known` compares what they rest on with what this file was written for.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import inspect
import io
import sys
from collections.abc import Callable, Container, Iterable
from typing import Any

from actprobe.base.errors import ActprobeError

VERSIONS = "9.25 to 9.27"  # the ones that the tests passed with
# What is called or replaced, by module and name, with the parameters that are relied on.
_KNOWN = {
    ("snakemake.cli", "parse_args"): ("argv",),
    ("snakemake.cli", "args_to_api"): ("args", "parser"),
    ("snakemake.cli", "SnakemakeApi"): (),
    ("snakemake.api", "SnakemakeApi.workflow"): ("self",),
    ("snakemake.api", "WorkflowApi.dag"): ("self",),
    ("snakemake.api", "DAGApi.execute_workflow"): ("self", "executor"),
    ("snakemake.io", "_IOFile.remove"): ("self", "remove_non_empty_dir", "only_local"),
    ("snakemake.modules", "WorkflowModifier.modify_rulename"): ("self", "rulename"),
    ("snakemake.path_modifier", "PathModifier.replace_prefix"): ("self", "path"),
}
_OPTIONS = ("targets", "dryrun", "touch", "force", "forceall", "forcerun", "nolock", "lint")


def require_known() -> None:
    """Raise ActprobeError unless Snakemake's internals are those that this file knows."""
    _refuse(_changed(module, name, ps) for (module, name), ps in _KNOWN.items())


def _refuse(changes: Iterable[str]) -> None:
    found = "; ".join(filter(None, changes))
    if found:
        from snakemake import __version__

        raise ActprobeError(
            f"actprobe does not know Snakemake {__version__}: {found}. Versions {VERSIONS} are known to "
            f'work: pip install "snakemake=={VERSIONS.split()[-1]}.*"'
        )


def _changed(module: str, name: str, parameters: tuple[str, ...]) -> str:
    """What is not as known of a function or class; "" when all is."""
    found: Any = sys.modules.get(module) or __import__(module, fromlist=["_"])
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        return f"{module}.{name} is gone"
    has = inspect.signature(found).parameters if parameters else ()
    missing = [p for p in parameters if p not in has]
    return f"{module}.{name} takes no {', '.join(missing)}" if missing else ""


def command_line() -> tuple[argparse.ArgumentParser, argparse.Namespace] | None:
    """Snakemake's parser and the options of this command with profiles applied.

    None under the Python API, where the command line is that of another program.
    """
    from snakemake.cli import parse_args

    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "args_to_api":
        frame = frame.f_back
    if frame is None:
        return None
    with contextlib.redirect_stderr(io.StringIO()):  # said when Snakemake read them
        parser, args = parse_args(sys.argv[1:])
    _refuse(f"the option {o} is gone" for o in _OPTIONS if not hasattr(args, o))
    return parser, args


def runs_jobs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> bool:
    """Whether Snakemake runs jobs with these options: not for dry runs, graphs, reports, lists, ….

    Snakemake decides that between its command line and its API. So it is asked: its own function is
    called with an API that only notes what is called.
    """
    from snakemake import cli

    if args.dryrun or args.touch:
        return False
    noted: list[str] = []
    api, cli.SnakemakeApi = cli.SnakemakeApi, functools.partial(_Noting, noted)
    try:
        given = copy.copy(args)
        given.runtime_profile = None  # starts a profiler
        cli.args_to_api(given, parser)
    finally:
        cli.SnakemakeApi = api
    return "execute_workflow" in noted


class _Noting:
    """Stands for any object of Snakemake's API: notes the names of the methods that are called."""

    def __init__(self, noted: list[str], *_: Any, **__: Any) -> None:
        self._noted = noted

    def __enter__(self) -> _Noting:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*_: Any, **__: Any) -> Any:
            self._noted.append(name)
            return self if name in ("workflow", "dag") else None

        return note

    def print_exception(self, error: Exception) -> None:
        raise error


def keep(paths: Container[str]) -> None:
    """Make Snakemake leave these files alone: only `actprobe gc` deletes a cached file.

    Snakemake deletes a job's outputs before the job starts, and after it failed. An artefact is
    whole or absent, and one that appeared after the plan belongs to another run on the same cache.
    """
    from snakemake.io import _IOFile

    remove = _IOFile.remove

    @functools.wraps(remove)
    async def spare(self: Any, *args: Any, **kwargs: Any) -> None:
        if str(self) not in paths:
            await remove(self, *args, **kwargs)

    _IOFile.remove = spare


def rule_name(workflow: Any, name: str) -> str:
    """The name of one of this workflow's rules in the workflow that runs: `use rule * from … as …`."""
    return str(workflow.modifier.modify_rulename(name))


def moves(workflow: Any, path: str) -> bool:
    """Whether a module's `prefix` or `replace_prefix` gives a file of this workflow another name."""
    return str(workflow.modifier.path_modifier.replace_prefix(path)) != path
