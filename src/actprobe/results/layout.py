"""The files of an experiment's results: `{results_dir}/{experiment}/…`, without keys in names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TABLES = {
    "probes_csv": "tables/probes.csv",
    "probes": "tables/probes.parquet",
    "summary": "tables/summary.csv",
    "comparisons": "tables/comparisons.csv",
    "quiver": "tables/quiver.csv",
    "datasets": "tables/datasets.csv",
    "skipped": "tables/skipped.csv",
}
ALWAYS = ("auc_by_layer", "auc_by_dataset", "quiver", "leakage")
WITH_SAES = ("sae_scatter", "sae_by_dataset", "auc_by_k")
OF_SETTINGS = ("scarcity", "imbalance", "label_noise", "ood")


def folder(config: Mapping[str, Any]) -> str:
    """The folder that holds the results of this config's experiment."""
    return f"{config['results_dir']}/{config['experiment']}"


def figures(settings: Collection[str], saes: bool) -> list[str]:
    """Which figures results of these settings, with or without SAE probes, call for."""
    return [*ALWAYS, *(WITH_SAES if saes else ()), *(s for s in OF_SETTINGS if s in settings)]


def figures_of(config: Mapping[str, Any]) -> list[str]:
    """The figures that a config calls for."""
    settings = {s for entry in config.get("probes") or () for s in entry["settings"]}
    return figures(settings, bool(config.get("saes")))


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "report") and name, for rules and library alike.

    The names are identifiers, so that a rule can say `output: **outputs(config)["tables"]`.
    """
    root = folder(config)
    return {
        "tables": {name: f"{root}/{path}" for name, path in TABLES.items()},
        "figures": {
            f"{name}_{ext}": f"{root}/figures/{name}.{ext}"
            for name in figures_of(config)
            for ext in ("svg", "png")
        },
        "report": {"html": f"{root}/report.html"},
    }
