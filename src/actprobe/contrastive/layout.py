"""The files of the contrastive results: `{results_dir}/{experiment}/…`, beside those of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TABLE = "tables/contrastive.csv"
FIGURES = (
    "contrastive_layers",
    "contrastive_roc",
    "contrastive_scores",
    "contrastive_cosines",
)
VECTORS = "contrastive"  # one folder per training set, model, site, position and method
REPORT = "contrastive.html"


def folder(config: Mapping[str, Any]) -> str:
    """The folder that holds the results of this config's experiment."""
    return f"{config['results_dir']}/{config['experiment']}"


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "report", "vectors": a folder) and name."""
    root = folder(config)
    return {
        "tables": {"table": f"{root}/{TABLE}"},
        "figures": {
            f"{name}_{ext}": f"{root}/figures/{name}.{ext}"
            for name in FIGURES
            for ext in ("svg", "png")
        },
        "report": {"html": f"{root}/{REPORT}"},
        "vectors": {"vectors": f"{root}/{VECTORS}"},
    }
