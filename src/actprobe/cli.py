"""The command line: actprobe plan | results | show | score | verify | gc | lock | import | export |
push | pull | snakefile."""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actprobe import __version__
from actprobe import config as configuration
from actprobe.base.errors import ActprobeError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target
from actprobe.exchange import ACTIVATIONS, LATENTS, VECTORS
from actprobe.experiment import targets as experiment
from actprobe.experiment import upkeep, words
from actprobe.face import commands as of_face

DEFAULT_CONFIG = "config/config.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status. Errors for the user print without a traceback."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except ActprobeError as e:
        print(f"actprobe: {e}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="actprobe", description=__doc__)
    top.add_argument("--version", action="version", version=f"actprobe {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    p = _command(commands, "plan", _plan, "show what is there, missing or stale, and why")
    _config_options(p)
    p.add_argument("--json", action="store_true", help="machine-readable, with every pending path")
    p.add_argument("targets", nargs="*", help="plan only these stages or paths")

    p = _command(
        commands, "results", _results, "print the headline numbers and where the files are"
    )
    _config_options(p)

    p = _command(commands, "verify", _verify, "read cached files whole and compare their digests")
    _config_options(p)
    p.add_argument("paths", nargs="*", help="files or folders (default: the config's cache_dir)")
    p.add_argument(
        "--set-aside",
        action="store_true",
        help="rename damaged files, and what was made from them, to .bad: they are made anew",
    )

    p = _command(commands, "gc", _gc, "list cached files that none of the given configs wants")
    p.add_argument(
        "--configfile", action="append", metavar="FILE", help="repeat: one experiment each"
    )
    p.add_argument("--delete", action="store_true", help="delete what is listed")
    p.add_argument("--all", action="store_true", help="name every file")

    p = _command(commands, "import", None, "bring in what other tools made")
    kinds = p.add_subparsers(required=True, metavar="WHAT")
    p = _command(kinds, "results", _import_results, "tables, figures and report of published CSVs")
    p.add_argument("folder", help="results folder of the paper's repository or of the package")
    p.add_argument("--experiment", default="published", help="name of the results (%(default)s)")
    p.add_argument("--results-dir", default="results", metavar="DIR")

    p = _command(
        commands, "lock", _lock, "ask Weights & Biases what a dump is; write its lock file"
    )
    p.add_argument("dump", help="a name of `dumps`")
    p.add_argument("--check", action="store_true", help="only say what has changed there")
    _config_options(p)

    _command(commands, "snakefile", _snakefile, "print where the Snakefile lies: snakemake -s PATH")

    p = _command(
        commands,
        "export",
        _export,
        "write what is cached in the formats of other tools, or send it",
    )
    p.add_argument("--wandb", action="store_true", help="log the results to a Weights & Biases run")
    p.add_argument(
        "--artefacts", nargs="+", default=[], metavar="STAGE", help="with --wandb: cached files too"
    )
    _config_options(p)
    kinds = p.add_subparsers(metavar="WHAT")
    p = _command(kinds, "vectors", _export_vectors, "directions of contrastive-1")
    p.add_argument("format", choices=VECTORS)
    p.add_argument("--unit", action="store_true", help="directions of norm 1")
    _export_options(p)
    p = _command(kinds, "activations", _export_activations, "activations as matrices")
    p.add_argument("format", choices=ACTIVATIONS)
    p.add_argument("--dataset", default="*", metavar="PATTERN", help="only these datasets")
    _export_options(p)
    p = _command(kinds, "latents", _export_latents, "SAE latents as sparse matrices")
    p.add_argument("format", choices=LATENTS)
    p.add_argument("--dataset", default="*", metavar="PATTERN", help="only these datasets")
    _export_options(p)
    p = _command(kinds, "saes", _export_saes, "SAEs that were trained here, for sae-lens")
    p.add_argument("format", choices=("saelens",))
    _export_options(p)
    of_face.add_export(kinds, _command, _config_options, _config)
    of_face.add(commands, _command, _config_options, _config)
    return top


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    p = commands.add_parser(name, help=text, description=text)
    p.set_defaults(run=run)
    return p


def _config_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--configfile", metavar="FILE", default=DEFAULT_CONFIG)
    p.add_argument("--config", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def _export_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", help="where to write")
    p.add_argument("--source", default="*", metavar="PATTERN", help="only these sources")
    _config_options(p)


def _config(args: argparse.Namespace) -> configuration.Config:
    raw = configuration.load_file(args.configfile)
    return configuration.resolve(configuration.overridden(raw, args.config))


def _plan(args: argparse.Namespace) -> int:
    config = _config(args)
    plan = experiment.plan(config, tuple(args.targets), config["plan"] == "all")
    if args.json:
        pending = {p: {"status": s.status, "why": s.why} for p, s in plan.pending.items()}
        content = {"summary": words.summary(plan), "estimate": words.estimate(plan)}
        print(json.dumps({**content, "pending": pending}, indent=1))
    else:
        print(words.table(plan))
        if plan.pending:
            print(words.estimate_table(plan))
    return 0


def _snakefile(args: argparse.Namespace) -> int:
    from actprobe import flow

    print(flow.snakefile())
    return 0


def _results(args: argparse.Namespace) -> int:
    from actprobe.report import finished

    print("\n".join(finished.told(_config(args))))
    return 0


def _import_results(args: argparse.Namespace) -> int:
    from actprobe.report import make_published
    from actprobe.report import outputs as page

    settings = configuration.resolve(
        {"experiment": args.experiment, "results_dir": args.results_dir, "datasets": []}
    )
    print("\n".join(make_published(args.folder, settings)))
    print(f"\nreport   {page(settings)['report']['html']}")
    return 0


def _cached(args: argparse.Namespace, stage: str, dataset: str = "*") -> list[Target]:
    """The targets of a stage that match --source (and the dataset) and are there."""
    config = _config(args)
    known = experiment.stages(config, DigestMemo(config["cache_dir"])).get(stage, [])
    wanted = [
        t
        for t in known
        if fnmatch.fnmatch(getattr(t.args, "source", t.item), args.source)
        and fnmatch.fnmatch(t.item, dataset)
    ]
    there = [t for t in wanted if Path(t.path).is_file()]
    if not there:
        why = "run snakemake first" if wanted else "the config asks for none such"
        raise ActprobeError(f"no {stage} of {args.source} to export: {why}")
    if len(there) < len(wanted):
        print(f"{len(wanted) - len(there)} of {len(wanted)} are not computed yet", file=sys.stderr)
    return there


def _lock(args: argparse.Namespace) -> int:
    from actprobe import dumps

    config = _config(args)
    if not args.check:
        print(dumps.lock(config, args.dump))
        return 0
    changes = dumps.outdated(config, args.dump)
    print("\n".join(changes) or f"{args.dump}: the lock file is current")
    return 1 if changes else 0


def _export(args: argparse.Namespace) -> int:
    from actprobe.exchange.upload import export_wandb

    if not args.wandb:
        raise ActprobeError("export what? vectors, activations, latents, saes, or --wandb")
    config = _config(args)
    known = experiment.stages(config, DigestMemo(config["cache_dir"]))
    for stage in args.artefacts:
        if stage not in known:
            raise ActprobeError(f"no stage {stage!r}; {configuration.nearest(stage, known)}")
    files = [t.path for s in args.artefacts for t in known[s] if Path(t.path).is_file()]
    print(export_wandb(config, files))
    return 0


def _export_vectors(args: argparse.Namespace) -> int:
    from actprobe.exchange import export

    found = [t.path for t in _cached(args, "probes") if t.args.get("applied")]
    if not found:
        raise ActprobeError(
            "the config asks for no directions: no entry of `probes` has contrastive-1"
        )
    for path in export.vectors(found, args.format, Path(args.folder), args.unit):
        print(path)
    return 0


def _export_activations(args: argparse.Namespace) -> int:
    from actprobe.exchange import export

    found = _cached(args, "activations", args.dataset)
    for path in export.activations(found, args.format, Path(args.folder)):
        print(path)
    return 0


def _export_latents(args: argparse.Namespace) -> int:
    from actprobe.exchange import export

    found = _cached(args, "latents", args.dataset)
    for path in export.latents(found, args.format, Path(args.folder)):
        print(path)
    return 0


def _export_saes(args: argparse.Namespace) -> int:
    from actprobe import sae
    from actprobe.exchange import export

    trained = [t for t in _cached(args, "saes") if sae.is_trained(t)]
    if not trained:
        raise ActprobeError("no SAE that was trained here to export: others are files already")
    for path in export.saes(trained, Path(args.folder)):
        print(path)
    return 0


def _verify(args: argparse.Namespace) -> int:
    roots = args.paths or [_config(args)["cache_dir"]]
    report = upkeep.verify(map(Path, roots), set_aside=args.set_aside)
    for path, reason in report.damaged.items():
        print(f"damaged: {path}: {reason}")
    for path, reason in report.children.items():
        print(f"not to be trusted: {path}: {reason}")
    print(
        f"{report.checked} files, {report.bytes / 1e6:,.1f} MB read, {len(report.damaged)} damaged"
        + (
            f", {len(report.children)} made from these or from replaced files"
            * bool(report.children)
        )
    )
    if (report.damaged or report.children) and args.set_aside:
        print("they were set aside as .bad; the next run makes what it needs of them anew")
    return 1 if report.damaged or report.children else 0


def _gc(args: argparse.Namespace) -> int:
    files = args.configfile or [DEFAULT_CONFIG]
    configs = [configuration.resolve(configuration.load_file(f)) for f in files]
    unwanted = upkeep.unwanted(configs)
    for group, files in itertools.groupby(unwanted, key=lambda f: f.group):
        for line in _gc_lines(group, list(files), args.all):
            print(line)
    total = sum(f.size for f in unwanted) / 1e6
    if args.delete:
        kept = upkeep.delete(f.path for f in unwanted)
        for path in kept:
            print(f"kept, in use by a running job: {path}")
        print(f"deleted {len(unwanted) - len(kept)} files, {total:,.1f} MB")
        return 0
    print(f"{len(unwanted)} files, {total:,.1f} MB that none of these configs wants")
    if unwanted:
        print(
            "Other experiments on this cache may want them: name every config with --configfile. "
            "Nothing is deleted without --delete"
        )
    return 0


def _gc_lines(group: str, files: Sequence[upkeep.File], all_names: bool) -> Iterator[str]:
    """A folder of unwanted files: how many, how large, whose, and when they were written."""
    days = sorted({time.strftime("%Y-%m-%d", time.localtime(f.written)) for f in files})
    size = sum(f.size for f in files) / 1e6
    owners = ", ".join(sorted({f.owner for f in files}))
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    yield f"{size:12,.2f} MB  {len(files):5} files  {when}  {owners}  {group}/"
    shown = files if all_names else files[:3]
    for f in shown:
        yield f"{f.size / 1e6:12,.2f} MB    {os.path.basename(f.path)}"
    if len(shown) < len(files):
        yield f"{'…':>15}    and {len(files) - len(shown)} more (--all names them)"


if __name__ == "__main__":
    sys.exit(main())
