"""What results rest on: the program, and every outside input with what identifies it.

`origin` is for the rules: it knows the plan alone and is light. The rest runs in the job that writes the
results, and reads headers.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actprobe.arrays.targets import ArraySpec
from actprobe.base import keys
from actprobe.base.errors import Damaged
from actprobe.cache import store
from actprobe.dumps.records import AssembleSpec
from actprobe.imports.targets import ImportSpec
from actprobe.lora import IndexSpec
from actprobe.sae.records import ConvertSpec, LatentSpec, MadeIdentity
from actprobe.texts import TextSpec

if TYPE_CHECKING:
    import pandas as pd

    from actprobe.cache.plan import Plan, Target

Row = dict[str, str]  # what, name, value
NOWHERE: dict[str, list] = {"inputs": [], "reads": []}
COLUMNS = ["what", "name", "value"]
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "matplotlib")
# Facts of an activations header that rounding depends on.
_COMPUTED = ("torch", "transformers", "tokenizers", "device", "attention", "threads")
_COUNTED = ("n_truncated", "n_special_in_text")


def origin(plan: Plan, *stages: str) -> dict[str, list[dict[str, Any]]]:
    """What the targets of these stages are made from.

    inputs: rows (`COLUMNS`) that name each dataset, model, SAE and protocol with its identity. reads:
    for each dataset and model the artefacts whose headers say how it was read: dataset, model, files.
    """
    below = _below(plan, stages)
    named = sorted({row for t in below for row in _named(t)})
    inputs = [dict(zip(COLUMNS, row, strict=True)) for row in named]
    files: dict[tuple[str, str], list[str]] = {}
    for t in below:
        model = getattr(t.args, "model", None)
        if model and t.path.startswith(f"{plan.config.cache_dir}/activations/"):
            files.setdefault((t.item, model), []).append(t.path)
    reads = [
        {"dataset": dataset, "model": model, "files": sorted(paths)}
        for (dataset, model), paths in sorted(files.items())
    ]
    return {"inputs": inputs, "reads": reads}


def _below(plan: Plan, stages: Collection[str]) -> list[Target]:
    """The targets of these stages and all that they are made from."""
    waiting = [p for p, t in plan.targets.items() if t.stage in stages]
    found: dict[str, Target] = {}
    while waiting:
        path = waiting.pop()
        if path not in found and path in plan.targets:
            found[path] = plan.targets[path]
            waiting += found[path].inputs
    return list(found.values())


def _named(t: Target) -> Iterator[tuple[str, str, str]]:
    """What an artefact says of the outside inputs that it was made from."""
    spec, args = t.spec, t.args
    match t.stage:
        case "wheels":
            yield "wheel", t.name, f"sha256 {t.key}"
        case "texts" if isinstance(spec, TextSpec):
            yield "dataset", t.item, _words(args.provenance)
            yield "content of dataset", t.item, f"sha256 {t.identity}"
        case "activations" if "model" in spec:
            asked = args.get("place", {}).get("asked")
            told = f" (asked for: {asked})" if asked else ""
            yield "model", args["model"], _words(spec["model"]) + told
        case "imports" if isinstance(spec, ImportSpec):
            yield "imported activations", t.name, f"digest {spec.content} ({spec.layout})"
        case "arrays" if isinstance(spec, ArraySpec):
            yield "arrays", t.name, f"sha256 {spec.content}"
        case "assemble" | "assemble_latents" if isinstance(spec, AssembleSpec):
            yield "dump", t.name, f"{len(spec.chunks)} files, digests together {_digest(spec)}"
        case "saes" if isinstance(spec, ConvertSpec):
            yield "SAE", t.item, _words(t.record["source"])
        case "saes":
            yield "SAE", t.item, f"trained here, key {t.key}"
        case "latents" if isinstance(spec, LatentSpec) and not isinstance(spec.sae, MadeIdentity):
            yield "SAE", args.source, _words(t.record["sae"])
        case "lora_index" if isinstance(spec, IndexSpec):
            yield "LoRA files", t.item, f"{spec.n} files, digests together {spec.files}"
        case "probes" if "recipe" in spec:
            name = " ".join(str(spec[k]) for k in ("protocol", "setting", "method") if k in spec)
            yield "recipe", name, f"digest {spec['recipe']}"
            if table := spec.get("table"):
                words = table if isinstance(table, str) else keys.spec_key(table)
                yield "labels of LoRAs", args["dataset"], f"digest {words}"


def _digest(spec: AssembleSpec) -> str:
    return keys.spec_key({"chunks": list(spec.chunks), "tokens": list(spec.tokens)})


def _words(identity: Mapping[str, Any]) -> str:
    """An identity as "hub ORG/NAME, revision 0123…"."""
    return ", ".join(
        f"{k} {v if isinstance(v, str | int) else json.dumps(v, sort_keys=True)}"
        for k, v in identity.items()
        if v is not None
    )


def facts(reads: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the headers say of how models read datasets: dataset, model, n_rows, n_truncated,
    n_special_in_text (None where no file says), and `computed`, what rounding depends on.

    reads: of `origin`. Every site and position of a model reads the same tokens, so one file that is
    there will do.
    """
    return [{**{k: r[k] for k in ("dataset", "model")}, **_read(r["files"])} for r in reads]


def _read(files: Iterable[str]) -> dict[str, Any]:
    for path in files:
        try:
            header = store.read_header(path)
        except (Damaged, OSError):  # deleted: the next may be there
            continue
        found = header["facts"]
        if not header["bad"] and "n_truncated" in found:
            computed = {k: found[k] for k in _COMPUTED if k in found}
            return {**{k: found.get(k) for k in ("n_rows", *_COUNTED)}, "computed": computed}
    return {**dict.fromkeys(("n_rows", *_COUNTED)), "computed": {}}


def rows(
    origin: Mapping[str, Any], cached: Iterable[str] = (), config: Mapping[str, Any] | None = None
) -> list[Row]:
    """All of it as rows of `COLUMNS`: the program, the config, what the origin names, how the models'
    activations were computed, and the cached files (keys) that hold the results."""
    found = [("program", *row) for row in program()]
    if config is not None:
        found.append(("config", "SHA-256", keys.spec_key(config)))
    found += [(r["what"], r["name"], r["value"]) for r in origin["inputs"]]
    computed: dict[tuple[str, str], list[str]] = {}
    for read in facts(origin["reads"]):
        if read["computed"]:
            computed.setdefault((read["model"], _words(read["computed"])), []).append(
                read["dataset"]
            )
    for (model, how), datasets in sorted(computed.items()):
        more = f" and {len(datasets) - 1} more" if len(datasets) > 1 else ""
        found.append(("activations computed with", f"{model} on {datasets[0]}{more}", how))
    if used := sorted({*cached} - {""}):
        found.append(
            ("cached files", str(len(used)), f"keys together {keys.spec_key({'keys': used})}")
        )
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def table(
    origin: Mapping[str, Any], cached: Iterable[str] = (), config: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """`rows` as a table."""
    import pandas as pd

    return pd.DataFrame(rows(origin, cached, config), columns=COLUMNS)


def program() -> list[tuple[str, str]]:
    """Names and versions of this package, its commit, Python and the libraries."""
    return [
        ("actprobe", f"{version('actprobe')}, commit {commit() or 'unknown'}"),
        ("python", platform.python_version()),
        *((p, version(p)) for p in PACKAGES),
    ]


def version(package: str) -> str:
    """The installed version of a package; "-" where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def commit() -> str:
    """The git commit of this package: of the checkout in which it lies, or that pip installed.

    "" where neither is known; with ", changed since" where files of the package are others.
    """
    here = Path(__file__).resolve().parent
    if _git(here, "ls-files", "--error-unmatch", "__init__.py"):
        changed = _git(here, "status", "--porcelain", "--", ".")
        return _git(here, "rev-parse", "HEAD") + ", changed since" * bool(changed)
    try:
        said = metadata.distribution("actprobe").read_text("direct_url.json")
        return json.loads(said or "{}").get("vcs_info", {}).get("commit_id", "")
    except (metadata.PackageNotFoundError, ValueError):
        return ""


def _git(folder: Path, *args: str) -> str:
    """What git says about a folder; "" where it cannot be asked, or the folder is in no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
