"""The files of directions: `{results_dir}/{experiment}/…`, beside those of other results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actprobe.probes import extensions, protocol
from actprobe.results.layout import figure_files, folder

if TYPE_CHECKING:
    from actprobe.plan import Plan

TABLE = "tables/contrastive.csv"
FIGURES = (
    "contrastive_layers",
    "contrastive_roc",
    "contrastive_scores",
    "contrastive_cosines",
)
VECTORS = "contrastive"  # one folder per training set, model, site, position and method


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "vectors": a folder) and name."""
    root = folder(config)
    return {
        "tables": {"table": f"{root}/{TABLE}"},
        "figures": figure_files(root, FIGURES),
        "vectors": {"vectors": f"{root}/{VECTORS}"},
    }


def paths(plan: Plan) -> list[str]:
    """The artefacts of fits that are tested on other datasets."""
    return [p for p in plan.paths("probes") if plan.targets[p].args.get("applied")]


def asked(config: Mapping[str, Any]) -> bool:
    """Whether a config asks for directions: an entry of `probes` whose protocol tests elsewhere."""
    extensions.loaded(config)
    loaded = (protocol.load(entry["protocol"]) for entry in config.get("probes") or [])
    return any(map(protocol.tests_elsewhere, loaded))
