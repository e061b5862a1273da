"""Commands about what is cached and about probes: show, score, push, pull, export probes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.config import Config

if TYPE_CHECKING:
    from actprobe.face.probe import Probe
    from actprobe.face.run import Run

WHATS = ("probes", "activations", "latents", "saes")
_FORMATS = ("actprobe", "lie-detectors", "gguf", "skops", "onnx", "safetensors")
_WHICH = ("dataset", "source", "method", "protocol", "setting")

Command = Callable[..., argparse.ArgumentParser]
Load = Callable[[argparse.Namespace], Config]


def add(commands: Any, command: Command, options: Callable[..., None], load: Load) -> None:
    """Add the commands. command, options, load: of the command line, to make a parser, to give it the
    options of a config, and to read that."""

    def run_of(args: argparse.Namespace) -> Run:
        from actprobe.face.run import Run

        return Run(load(args), Path(args.configfile))

    p = command(commands, "show", lambda a: _show(a, run_of(a)), "list what is cached, by names")
    p.add_argument("patterns", nargs="*", default=["*"], help="of STAGE/NAME, e.g. 'probes/*'")
    options(p)

    p = command(commands, "score", _score, "score the texts or chats in a file with a probe")
    p.add_argument("probe", help="a folder that a probe was saved to, or hub:ORG/NAME@COMMIT")
    p.add_argument("file", help="csv, tsv, json, jsonl or parquet; or txt, a text in each line")
    p.add_argument("--text", metavar="COLUMN", help="the column of the texts (default: text)")
    p.add_argument("--messages", metavar="COLUMN", help="the column of chats")
    p.add_argument("--id", metavar="COLUMN", help="a column that names the rows")
    p.add_argument("--tokens", action="store_true", help="a line for each token")
    p.add_argument("--cut", action="store_true", help="shorten texts that are too long")
    p.add_argument("--model", help="where its model is here: a folder or hub:ORG/NAME")
    p.add_argument("--override", metavar="WHY", help="use a model that is not the probe's own")

    p = command(commands, "push", lambda a: _push(a, run_of(a)), "send to the Hugging Face hub")
    p.add_argument("repository", help="hub:ORG/NAME; made, and private, where there is none")
    p.add_argument("--what", required=True, choices=WHATS)
    p.add_argument("--public", action="store_true", help="make the repository public")
    p.add_argument("--licence", help="of probes, as the hub calls it, e.g. mit")
    _which(p)
    options(p)

    p = command(commands, "pull", lambda a: _pull(a, load), "fetch what was pushed")
    p.add_argument("repository", help="hub:ORG/NAME@COMMIT")
    p.add_argument("--what", required=True, choices=WHATS)
    p.add_argument("--into", metavar="DIR", help="default: the config's cache; probes: probes/")
    options(p)


def add_export(kinds: Any, command: Command, options: Callable[..., None], load: Load) -> None:
    """Add `export probes`."""
    p = command(kinds, "probes", lambda a: _export(a, load), "kept probes, a file or folder each")
    p.add_argument("format", choices=_FORMATS)
    p.add_argument("folder", help="where to write")
    _which(p)
    options(p)


def _which(p: argparse.ArgumentParser) -> None:
    for name in _WHICH:
        p.add_argument(f"--{name}", metavar="PATTERN", help=f"only of this {name}")


def _chosen(args: argparse.Namespace) -> dict[str, str]:
    return {k: v for k in _WHICH if (v := getattr(args, k))}


def _show(args: argparse.Namespace, run: Run) -> int:
    from actprobe.face import show

    print("\n".join(show.lines(run.show(args.patterns))))
    return 0


def _score(args: argparse.Namespace) -> int:
    from actprobe.face.folder import load_probe
    from actprobe.face.given import rows

    probe = load_probe(args.probe, model=args.model)
    ids, given = rows(args.file, args.text, args.messages, args.id)
    table = scored(probe, ids, given, args.tokens, args.cut, args.override)
    table.to_csv(sys.stdout, index=False)
    return 0


def scored(
    probe: Probe, ids: list[str], given: list[Any], tokens: bool, cut: bool, override: str | None
) -> Any:
    """id, score (of several classes one each) and prediction of each row, or one line per token."""
    import pandas as pd

    from actprobe.face import applied

    found = applied.score_texts(probe, given, tokens, cut, override, ids)
    if tokens:
        return pd.concat([t.assign(row=n) for n, t in zip(ids, found, strict=True)])
    columns = {"score": found}
    if found.ndim == 2:
        columns = {f"score_{c}": found[:, k] for k, c in enumerate(probe.classes_)}
    return pd.DataFrame({"id": ids, **columns, "prediction": probe.labels(found)})


def _probes(run: Run, args: argparse.Namespace) -> list[Probe]:
    found = run.probes(**_chosen(args))
    if not found:
        raise ActprobeError(
            "no kept probe matches; `actprobe show 'probes/*'` lists fits, and `keep` of an entry in "
            f"`probes` says which settings keep theirs; make them: {run.command('probes')}"
        )
    return found


def called(probe: Probe) -> str:
    """A name for a file or folder that tells fits apart."""
    fit, source = probe.card.fit, probe.origin.source.replace("/", "-")
    said = [fit[k] for k in ("protocol", "setting", "dataset")] + [source, fit["method"]]
    more = [f"{k}{fit[k]}" for k in ("k", "seed") if fit.get(k)]
    more += [str(fit[k]) for k in ("condition", "label", "columns") if fit.get(k)]
    return ".".join(map(str, [*said, *more])).replace("/", "-").replace(" ", "_")


def _export(args: argparse.Namespace, load: Load) -> int:
    from actprobe.exchange.probes_out import ENDINGS
    from actprobe.face.run import Run

    run = Run(load(args), Path(args.configfile))
    for probe in _probes(run, args):
        to = Path(args.folder) / called(probe)
        if args.format == "actprobe":
            print(probe.save(to, scores=True))
        else:
            print(probe.export(args.format, f"{to}.{ENDINGS[args.format]}"))
    return 0


def _push(args: argparse.Namespace, run: Run) -> int:
    from actprobe.exchange import publishing

    if args.what == "probes":
        with tempfile.TemporaryDirectory(prefix="actprobe-push-") as scratch:
            files, readme = _folders(_probes(run, args), Path(scratch), args.licence)
            print(publishing.push(args.repository, args.what, files, readme, args.public))
        return 0
    cache, files = Path(run.config["cache_dir"]), {}
    for t in run.known.get(args.what, []):
        own, path = {"dataset": t.item, "source": t.args.get("source", t.item)}, Path(t.path)
        if path.is_file() and _matches(own, args):
            files[path.relative_to(cache).as_posix()] = path
    if not files:
        raise ActprobeError(f"no {args.what} to push; make them: {run.command(args.what)}")
    readme = artefacts_card(args.what, run.config["experiment"], sorted(files))
    print(publishing.push(args.repository, args.what, files, readme, args.public))
    return 0


def _matches(own: dict[str, Any], args: argparse.Namespace) -> bool:
    import fnmatch

    return all(fnmatch.fnmatch(str(v), getattr(args, k) or "*") for k, v in own.items())


def _folders(
    probes: list[Probe], scratch: Path, licence: str | None
) -> tuple[dict[str, Path], str]:
    """Probes as folders: name in the repository -> file; and the README of the repository."""
    files: dict[str, Path] = {}
    lines = ["---", f"license: {licence or 'other'}", "library_name: actprobe"]
    lines += ["tags: [actprobe, probe, interpretability]", "---", "# Probes", ""]
    for probe in probes:
        name = called(probe)
        folder = probe.published().save(scratch / name, licence)
        prefix = "" if len(probes) == 1 else f"{name}/"
        if f"{prefix}README.md" in files:
            raise BadInput(f"two fits are called {name}; choose with --protocol or --setting")
        files |= {f"{prefix}{p.name}": p for p in sorted(folder.iterdir())}
        lines.append(f"- `{name}`: {probe.name}")
    return files, "\n".join(lines) + "\n"


def artefacts_card(what: str, experiment: str, names: list[str]) -> str:
    """The README of a repository of cached files."""
    head = ["---", "license: other", "tags: [actprobe, interpretability]", "---"]
    told = [
        f"# {what.capitalize()} of {experiment}", "",
        "Sealed files of actprobe at their places below its cache. Fetch them with", "```",
        f"actprobe pull hub:ORG/NAME@COMMIT --what {what}", "```", "",
    ]  # fmt: skip
    return "\n".join([*head, *told, *(f"- `{n}`" for n in names)]) + "\n"


def _pull(args: argparse.Namespace, load: Load) -> int:
    from actprobe.exchange import publishing

    into = Path(args.into or ("probes" if args.what == "probes" else load(args)["cache_dir"]))
    found = publishing.pull(args.repository, args.what, into)
    for path in found:
        print(path)
    print(f"{len(found)} new files in {into}")
    return 0
