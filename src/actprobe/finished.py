"""What is there of an experiment's results, of every kind: probes, contrastive probes, top contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe import contrastive, results
from actprobe.errors import ActprobeError

CONTEXTS = "contexts"  # the folder of the pages of top contexts


@dataclass(frozen=True)
class Kind:
    """One kind of results: whether a config asks for it, its files by kind and name, and the lines that
    say what came out."""

    asked: Callable[[Mapping[str, Any]], bool]
    outputs: Callable[[Mapping[str, Any]], dict[str, dict[str, str]]]
    told: Callable[[Mapping[str, Any]], list[str]]


def _directions(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Files of directions; they are a part of the page of probes."""
    return contrastive.outputs(config) | {"report": results.outputs(config)["report"]}


KINDS = (
    Kind(lambda c: bool(c.get("probes")), results.outputs, lambda c: results.told(c)),
    Kind(contrastive.asked, _directions, lambda c: contrastive.told(c)),
)


def folder(config: Mapping[str, Any]) -> Path:
    """Where the results of a config's experiment lie."""
    return Path(config["results_dir"], config["experiment"])


def files(config: Mapping[str, Any]) -> list[Path]:
    """All result files that are there, of every kind, whatever the config asks for now."""
    root = folder(config)
    tops = {"tables", "figures", CONTEXTS}
    tops |= {Path(p).relative_to(root).parts[0] for k in KINDS for p in _paths(k, config)}
    found = [f for top in sorted(tops) for f in sorted([root / top, *(root / top).rglob("*")])]
    return [f for f in found if f.is_file() and not f.name.startswith(".")]


def told(config: Mapping[str, Any]) -> list[str]:
    """What came out and where it is, for people: of each kind whose tables are there.

    Raises ActprobeError where there is none, naming what the config asks for.
    """
    found: list[list[str]] = []
    missing = []
    for kind in KINDS:
        outputs = kind.outputs(config)
        table = _first(outputs["tables"], ".csv")
        if table.is_file():
            found.append([*_lines(kind, config), "", *_where(outputs)])
        elif kind.asked(config):
            missing.append(outputs["report"]["html"])
    if contexts := sorted((folder(config) / CONTEXTS).glob("*.html")):
        found.append([f"contexts {p}" for p in contexts])
    if not found:
        wanted = (
            ", ".join(dict.fromkeys(missing)) or f"{folder(config)} (the config asks for no report)"
        )
        raise ActprobeError(f"{wanted} is not there yet: run snakemake first")
    if missing:
        found.append([f"{page} is not there yet: run snakemake" for page in dict.fromkeys(missing)])
    return [line for part in found for line in ("", *part)][1:]


def _lines(kind: Kind, config: Mapping[str, Any]) -> list[str]:
    try:
        return kind.told(config)
    except FileNotFoundError as e:
        raise ActprobeError(f"{e.filename} is not there: run snakemake first") from None


def _paths(kind: Kind, config: Mapping[str, Any]) -> list[str]:
    return [p for of in kind.outputs(config).values() for p in of.values()]


def _first(files: Mapping[str, str], ending: str) -> Path:
    return Path(next(p for p in files.values() if p.endswith(ending)))


def _where(outputs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The first table and figure, and the page."""
    places = {
        "tables": _first(outputs["tables"], ".csv"),
        "figure": _first(outputs["figures"], ".png"),
        "report": Path(outputs["report"]["html"]),
    }
    return [
        f"{name:8} {path}{'' if path.is_file() else ' (not there yet: run snakemake)'}"
        for name, path in places.items()
    ]
