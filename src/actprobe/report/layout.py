"""The figures and the page of an experiment: `{results_dir}/{experiment}/…`, beside its tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from actprobe.results import layout

PAGE = "report.html"
CAPTIONS = Path(__file__).with_name("captions")
ALWAYS = ("scores_by_layer", "scores_by_dataset", "quiver", "leakage")
WITH_SAES = ("sae_scatter", "sae_by_dataset", "scores_by_k")
TRAINING = "sae_training"
OF_SETTINGS = ("scarcity", "imbalance", "label_noise", "ood")
CONFUSION = "confusion"
TRANSFER = "transfer"
FEATURES = ("representations", "modules")
DIRECTIONS = (
    "contrastive_layers",
    "contrastive_roc",
    "contrastive_scores",
    "contrastive_cosines",
)


def of_settings(settings: Collection[str], saes: bool) -> list[str]:
    """The figures that results of these settings, with or without SAE probes, call for."""
    return [*ALWAYS, *(WITH_SAES if saes else ()), *(s for s in OF_SETTINGS if s in settings)]


def figures(config: Mapping[str, Any]) -> list[str]:
    """The figures that a config calls for."""
    entries = layout.entries(config)
    settings = {s for e in entries if not layout.reads_features(e) for s in e["settings"]}
    saes = (config.get("saes") or {}).values()
    return [
        *(of_settings(settings, bool(saes)) if settings or not entries else ()),
        *([TRAINING] if any(s.get("train") for s in saes) else ()),
        *(FEATURES if layout.has_features(config) else ()),
        CONFUSION,
        *([TRANSFER] if layout.has_evaluations(config) else ()),
        *(DIRECTIONS if layout.has_directions(config) else ()),
    ]


def caption(name: str) -> str:
    """The file with a figure's or table's caption; Snakemake's own report reads it too."""
    return str(CAPTIONS / f"{name}.rst")


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("figures", "report") and name; the names are identifiers, for rules."""
    root = layout.folder(config)
    files = {
        f"{name}_{ext}": f"{root}/figures/{name}.{ext}"
        for name in figures(config)
        for ext in ("svg", "png")
    }
    return {"figures": files, "report": {"html": f"{root}/{PAGE}"}}
