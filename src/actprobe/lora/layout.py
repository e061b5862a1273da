"""The files of the LoRA results: `{results_dir}/{experiment}/…`, beside those of other rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.results.layout import figure_files, folder

TABLES = {
    "runs": "tables/lora_runs.csv",
    "summary": "tables/lora_summary.csv",
    "layers": "tables/lora_layers.csv",
    "confusion": "tables/lora_confusion.csv",
    "refused": "tables/lora_refused.csv",
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
