"""The files of the contrastive results: `{results_dir}/{experiment}/…`, beside those of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.results.layout import figure_files, folder

TABLE = "tables/contrastive.csv"
PROVENANCE = "tables/contrastive_provenance.csv"
FIGURES = (
    "contrastive_layers",
    "contrastive_roc",
    "contrastive_scores",
    "contrastive_cosines",
)
VECTORS = "contrastive"  # one folder per training set, model, site, position and method
REPORT = "contrastive.html"


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "report", "vectors": a folder) and name."""
    root = folder(config)
    return {
        "tables": {"table": f"{root}/{TABLE}", "provenance": f"{root}/{PROVENANCE}"},
        "figures": figure_files(root, FIGURES),
        "report": {"html": f"{root}/{REPORT}"},
        "vectors": {"vectors": f"{root}/{VECTORS}"},
    }
