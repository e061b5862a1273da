"""What is there of an experiment's results: tables, figures, page, vectors, pages of top contexts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe import report, results
from actprobe.base.errors import ActprobeError

CONTEXTS = "contexts"  # the folder of the pages of top contexts


def folder(config: Mapping[str, Any]) -> Path:
    """Where the results of a config's experiment lie."""
    return Path(config["results_dir"], config["experiment"])


def files(config: Mapping[str, Any]) -> list[Path]:
    """All result files that are there, whatever the config asks for now."""
    root = folder(config)
    tops = sorted(
        [CONTEXTS, Path(results.vectors(config)).name, "figures", "report.html", "tables"]
    )
    found = [f for top in tops for f in sorted([root / top, *(root / top).rglob("*")])]
    return [f for f in found if f.is_file() and not f.name.startswith(".")]


def told(config: Mapping[str, Any]) -> list[str]:
    """What came out and where it is, for people.

    Raises ActprobeError where there is nothing, naming what the config asks for.
    """
    shown = report.outputs(config)
    table, page = Path(results.outputs(config)["probes_csv"]), Path(shown["report"]["html"])
    found: list[list[str]] = []
    if table.is_file():
        figure = next(Path(p) for p in shown["figures"].values() if p.endswith(".png"))
        places = {"tables": table, "figure": figure, "report": page}
        found.append([*_lines(config), "", *(_where(*place) for place in places.items())])
    if contexts := sorted((folder(config) / CONTEXTS).glob("*.html")):
        found.append([f"contexts {p}" for p in contexts])
    asked = bool(config.get("probes"))
    if not found:
        wanted = page if asked else f"{folder(config)} (the config asks for no report)"
        raise ActprobeError(f"{wanted} is not there yet: run snakemake first")
    if asked and not table.is_file():
        found.append([f"{page} is not there yet: run snakemake"])
    return [line for part in found for line in ("", *part)][1:]


def _lines(config: Mapping[str, Any]) -> list[str]:
    try:
        return report.told(config)
    except FileNotFoundError as e:
        raise ActprobeError(f"{e.filename} is not there: run snakemake first") from None


def _where(name: str, path: Path) -> str:
    return f"{name:8} {path}{'' if path.is_file() else ' (not there yet: run snakemake)'}"
