"""Which files of a folder hold which activations, by the layouts that other tools write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from actprobe.base.errors import BadInput, ConfigError, bad_file
from actprobe.models.hooks import HOOK, HOOKS, site_of

VECTORS = ("pt", "safetensors", "gguf")  # formats that directions are written in
ACTIVATIONS = ("safetensors", "npy", "v1", "v2", "saeprobes")  # and activations
LATENTS = ("safetensors", "npz")
INFO, METADATA = "layer_info.json", "metadata.json"
STACKED = ("test_activations.pt", "deploy_activations.pt")  # positive, negative
STACKED_ROWS = "activations.pt"
NOTE = "written by actprobe"  # in layer_info.json
PARTS = ("test", "deploy")
PATTERNS = {
    "saeprobes": "{dataset}_{hook}.pt",
    "safetensors": "{dataset}/{site}.{position}.safetensors",
}
_KIND = "|".join(HOOKS)
_PARTS = {
    "dataset": r"(?P<dataset>.+)",
    "site": rf"(?P<site>embed|(?:{_KIND})\.\d+)",
    "hook": rf"(?P<hook>{HOOK})",
    "kind": rf"(?P<kind>{_KIND})",
    "layer": r"(?P<layer>\d+)",
    "position": r"(?P<position>[A-Za-z0-9_][A-Za-z0-9_-]*)",  # a dot begins something else
}
_OOD = "_OOD"


@dataclass(frozen=True)
class Found:
    """The activations of one dataset, site and position: files below the folder, in order.

    pairs: the first half of the files holds the positive rows of each pair, the second half the
    negative ones.
    """

    dataset: str
    site: str
    position: str
    files: tuple[str, ...]
    pairs: bool = False


def by_layer(folder: Path, entry: Mapping[str, Any], dataset: str, where: str) -> list[Found]:
    """What a folder in the layouts v1 and v2 holds: one for each `layer_{L}`.

    Raises ConfigError when the folder is of the other layout, or not of these at all.
    """
    if entry["hook"] is None:
        raise ConfigError(
            f"{where}.hook: layout {entry['layout']} does not say where its activations were read; "
            "set it to resid_post, resid_pre, …"
        )
    info = _info(folder, where)
    layout = "v2" if info.get("storage_format") == "individual" else "v1"
    if layout != entry["layout"]:
        raise ConfigError(f"{where}: {folder}/{INFO} is of layout {layout}, not {entry['layout']}")
    numbers = sorted(
        int(m[1]) for p in folder.iterdir() if (m := re.fullmatch(r"layer_(\d+)", p.name))
    )
    if not numbers:
        raise ConfigError(f"{where}: no folder layer_* in {folder}")
    position = entry["position"] or ("tokens" if layout == "v2" else "last")
    found = []
    for n in numbers:
        files, pairs = (_stacked if layout == "v1" else _single)(folder, f"layer_{n}", where)
        found.append(Found(dataset, f"{entry['hook']}.{n}", position, tuple(files), pairs))
    return found


def _info(folder: Path, where: str) -> dict[str, Any]:
    for name in (INFO, METADATA):
        if not (folder / name).is_file():
            raise ConfigError(f"{where}: no {name} in {folder}")
    try:
        return read_object(folder / INFO)
    except BadInput as e:
        raise ConfigError(f"{where}: {e}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file of somebody else; BadInput when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise bad_file(path, e, "cannot be read as JSON: ") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected an object, found {type(content).__name__}")
    return content


def _stacked(folder: Path, layer: str, where: str) -> tuple[list[str], bool]:
    if (folder / layer / STACKED_ROWS).is_file():
        return [f"{layer}/{STACKED_ROWS}"], False
    missing = [f for f in STACKED if not (folder / layer / f).is_file()]
    if missing:
        raise ConfigError(
            f"{where}: neither {STACKED_ROWS} nor {' and '.join(missing)} in {folder}/{layer}"
        )
    return [f"{layer}/{f}" for f in STACKED], True


def _single(folder: Path, layer: str, where: str) -> tuple[list[str], bool]:
    pairs = (folder / layer / PARTS[0]).is_dir()
    files = []
    for part in [f"{layer}/{p}" for p in PARTS] if pairs else [layer]:
        numbers = sorted(int(p.stem) for p in (folder / part).glob("*.pt") if p.stem.isdecimal())
        if not numbers or numbers != list(range(len(numbers))):
            gaps = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
            raise ConfigError(f"{where}: {folder}/{part}: no file {gaps[0]}.pt")
        files += [f"{part}/{n}.pt" for n in numbers]
    return files, pairs


def by_name(
    folder: Path, entry: Mapping[str, Any], datasets: Mapping[str, str], where: str
) -> list[Found]:
    """What the names of the files in a folder say.

    datasets: by what files call them (their names, and for layout saeprobes the package's too). A
    dataset without a file at a site and position that others have is found without files. Raises
    ConfigError when two files hold the same.
    """
    pattern = entry["files"] or PATTERNS[entry["layout"]]
    form = _regex(pattern, where)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for called, name in _names(folder, entry):
        if (m := form.fullmatch(called)) is None:
            continue
        said = m.groupdict()
        kind = said.get("kind") or entry["hook"]
        if not {"site", "hook"} & said.keys() and kind is None:
            raise ConfigError(f"{where}.hook: {pattern} does not tell it; set it")
        site = said.get("site") or site_of(said.get("hook", "")) or f"{kind}.{int(said['layer'])}"
        position = said.get("position") or entry["position"] or "last"
        if (dataset := datasets.get(said["dataset"])) is None:
            continue
        files = found.setdefault((_plain(site), position), {})
        if files.setdefault(dataset, name) != name:
            raise ConfigError(
                f"{where}: {files[dataset]} and {name} both hold {_plain(site)} ({position}) of "
                f"{dataset} in {folder}; move one of them away, or set {where}.files so that it "
                "matches one"
            )
    if not found:
        raise ConfigError(f"{where}: no file of these datasets in {folder} matches {pattern}")
    return [
        Found(dataset, *key, (of[dataset],) if dataset in of else ())
        for key, of in sorted(found.items())
        for dataset in sorted(set(datasets.values()))
    ]


def _plain(site: str) -> str:
    """A site with its layer as a number: resid_post.4 of resid_post.04."""
    kind, _, layer = site.rpartition(".")
    return f"{kind}.{int(layer)}" if kind else site


def _names(folder: Path, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of files, and where they lie, seen from the folder: below it, and for layout saeprobes
    in the folder of the package's "OOD data" beside it."""
    yield from ((name, name) for name in _walk(folder))
    other = folder.resolve().with_name(f"{folder.resolve().name}{_OOD}")
    if entry["layout"] == "saeprobes" and not entry["files"] and other.is_dir():
        yield from ((name, f"../{other.name}/{name}") for name in _walk(other))


def package_name(dataset: str, provenance: Mapping[str, Any]) -> tuple[str, bool]:
    """What the sae-probes package calls a dataset, and whether it is one of its "OOD data".

    provenance: where the texts came from (`texts` artefacts keep it). The package takes its files'
    names up to the first dot, blanks and all (0.4.2, `generate_single_dataset_activations`).
    """
    place = PurePosixPath(provenance.get("member") or provenance.get("file") or dataset)
    stem = place.name.partition(".")[0]
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip(".-")
    own = place.parent.name in ("cleaned_data", "OOD data") or slug == dataset
    name = stem if own else dataset
    return name, place.parent.name == "OOD data" or name.endswith(_OOD)


def _regex(pattern: str, where: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", pattern)
    names = pieces[1::2]
    unknown = sorted(set(names) - _PARTS.keys())
    if unknown or "dataset" not in names or not {"site", "hook", "layer"} & set(names):
        problem = f"unknown {{{unknown[0]}}}" if unknown else "expected {dataset} and {site}"
        raise ConfigError(f"{where}.files: {pattern}: {problem} (or {{kind}} and {{layer}})")
    parts = [_PARTS[p] if i % 2 else re.escape(p) for i, p in enumerate(pieces)]
    return re.compile("".join(parts))


def _walk(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield str(Path(root, name).relative_to(folder))
