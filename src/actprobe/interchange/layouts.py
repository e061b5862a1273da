"""Which files of a folder hold which activations, by the layouts that other tools write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.errors import ConfigError
from actprobe.models.hooks import HOOK, HOOKS, site_of

VECTORS = ("pt", "safetensors", "gguf")  # formats that directions are written in
ACTIVATIONS = ("safetensors", "npy", "v1", "v2", "saeprobes")  # and activations
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
    "position": r"(?P<position>[^/]+)",
}


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
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except ValueError as e:
        raise ConfigError(f"{where}: {folder}/{INFO} is not JSON: {e}") from None
    if not isinstance(info, dict):
        raise ConfigError(f"{where}: {folder}/{INFO}: expected an object")
    return info


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
    folder: Path, entry: Mapping[str, Any], datasets: Iterable[str], where: str
) -> list[Found]:
    """What the names of the files in a folder say.

    A dataset without a file at a site and position that others have is found without files.
    """
    pattern = entry["files"] or PATTERNS[entry["layout"]]
    form = _regex(pattern, where)
    files: dict[tuple[str, str], dict[str, str]] = {}
    for name in _walk(folder):
        if (m := form.fullmatch(name)) is None:
            continue
        said = m.groupdict()
        kind = said.get("kind") or entry["hook"]
        if not {"site", "hook"} & said.keys() and kind is None:
            raise ConfigError(f"{where}.hook: {pattern} does not tell it; set it")
        site = said.get("site") or site_of(said.get("hook", "")) or f"{kind}.{int(said['layer'])}"
        position = said.get("position") or entry["position"] or "last"
        files.setdefault((site, position), {})[said["dataset"]] = name
    names = set(datasets)
    wanted = {key: of for key, of in files.items() if names & of.keys()}
    if not wanted:
        raise ConfigError(f"{where}: no file of these datasets in {folder} matches {pattern}")
    return [
        Found(dataset, *key, (of[dataset],) if dataset in of else ())
        for key, of in sorted(wanted.items())
        for dataset in sorted(names)
    ]


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
