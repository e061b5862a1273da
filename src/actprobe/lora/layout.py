"""The files of the LoRA results: `{results_dir}/{experiment}/…`, beside those of other rooms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actprobe.results.layout import figure_files, folder

TABLES = {
    "runs": "tables/lora_runs.csv",
    "summary": "tables/lora_summary.csv",
    "layers": "tables/lora_layers.csv",
    "choices": "tables/lora_choices.csv",
    "confusion": "tables/lora_confusion.csv",
    "refused": "tables/lora_refused.csv",
    "provenance": "tables/lora_provenance.csv",
}
FIGURES = ("lora_representations", "lora_layers", "lora_confusion")
REPORT = "lora.html"


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "report") and name."""
    root = folder(config)
    return {
        "tables": {name: f"{root}/{path}" for name, path in TABLES.items()},
        "figures": figure_files(root, FIGURES),
        "report": {"html": f"{root}/{REPORT}"},
    }


def telling(features: Iterable[str]) -> list[str]:
    """One representation per collection that knows the files whose weights turned out unusable:
    norm_only where it is made; flat_vec, which may be a tombstone, only where nothing else is."""
    names = {p: Path(p).name.partition(".")[0] for p in features}
    ordered = sorted(names, key=lambda p: {"flat_vec": 0, "norm_only": 2}.get(names[p], 1))
    return sorted({Path(p).parent: p for p in ordered if names[p] != "recipe_only"}.values())
