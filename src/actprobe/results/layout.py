"""The tables of an experiment: `{results_dir}/{experiment}/tables/…`, without keys in their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actprobe.probes import extensions, protocol, tested
from actprobe.sae import MadePlace, is_trained

if TYPE_CHECKING:
    from actprobe.cache.plan import Plan
    from actprobe.sae import LatentTarget

TABLES = {
    "probes_csv": "tables/probes.csv",
    "probes": "tables/probes.parquet",
    "summary": "tables/summary.csv",
    "comparisons": "tables/comparisons.csv",
    "quiver": "tables/quiver.csv",
    "confusion": "tables/confusion.csv",
    "datasets": "tables/datasets.csv",
    "skipped": "tables/skipped.csv",
    "provenance": "tables/provenance.csv",
}
FEATURE_TABLES = {
    "representations": "tables/representations.csv",
    "modules": "tables/modules.csv",
    "choices": "tables/choices.csv",
    "refused": "tables/refused.csv",
}
SAE_TABLES = {"saes": "tables/saes.csv", "sae_training": "tables/sae_training.csv"}
DIRECTION_TABLES = {"directions": "tables/contrastive.csv"}
TRANSFER_TABLES = {"transfer": "tables/transfer.csv"}
ROW_TABLES = {  # of kept fits
    "scores": "tables/scores.parquet",
    "errors": "tables/errors.csv",
    "alarms": "tables/alarms.csv",
    "paired": "tables/paired.csv",
}


def folder(config: Mapping[str, Any]) -> str:
    """The folder that holds the results of this config's experiment."""
    return f"{config['results_dir']}/{config['experiment']}"


def vectors(config: Mapping[str, Any]) -> str:
    """The folder of directions as files, where there are any."""
    return f"{folder(config)}/contrastive"


def reads_features(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `probes` is about features of LoRA weights."""
    return "protocol" in entry and protocol.reads_features(protocol.load(entry["protocol"]))


def has_features(config: Mapping[str, Any]) -> bool:
    """Whether a config probes features of LoRA weights."""
    return any(map(reads_features, entries(config)))


def has_evaluations(config: Mapping[str, Any]) -> bool:
    """Whether fits of a config are tried on collections of `apply_to`."""
    applied = [e["protocol"] for e in entries(config) if e.get("apply_to")]
    return not all(protocol.tests_elsewhere(protocol.load(name)) for name in applied)


def has_directions(config: Mapping[str, Any]) -> bool:
    """Whether a config has fits on all rows of a dataset that other datasets test."""
    return any(
        protocol.tests_elsewhere(protocol.load(entry["protocol"]))
        for entry in entries(config)
        if "protocol" in entry
    )


def entries(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The `probes` of a config, whose protocols may name what files of `extensions` register."""
    extensions.loaded(config)
    return config.get("probes") or ()


def outputs(config: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a config's results by name; the names are identifiers, for rules."""
    found = TABLES | (SAE_TABLES if config.get("saes") else {})
    found |= FEATURE_TABLES if has_features(config) else {}
    found |= DIRECTION_TABLES if has_directions(config) else {}
    found |= TRANSFER_TABLES if has_evaluations(config) else {}
    found |= ROW_TABLES if entries(config) else {}
    return {name: f"{folder(config)}/{path}" for name, path in found.items()}


def applied(plan: Plan) -> list[str]:
    """The artefacts of fits that other datasets test."""
    return [p for p in plan.paths("probes") if getattr(plan.targets[p].args, "applied", False)]


def encoded(plan: Plan) -> list[dict[str, Any]]:
    """The latents that probes read: SAE, dataset, place, and where they and the SAE are cached.

    trained: the SAE's own artefact when it was trained here, else ""; texts and tests: the dataset's
    artefact, and the protocol and setting of every probe that tests on it (`probes.tested`).
    """
    tests: dict[str, set[tuple[str, str]]] = defaultdict(set)
    texts: dict[str, str] = {}
    for path in plan.paths("probes"):
        t = plan.targets[path]
        if "matrix" not in t.args:
            continue
        tests[t.args["matrix"]].add((t.args["protocol"], t.spec["setting"]))
        texts[t.args["matrix"]] = t.args["texts"]
        if "test_matrix" in t.args:
            tests[t.args["test_matrix"]].add(tested.WHOLE)
            texts[t.args["test_matrix"]] = t.args["test_texts"]
    return [
        {
            "sae": t.args.source,
            "dataset": t.item,
            **{k: getattr(t.args, k) for k in ("model", "site", "position")},
            "latents": path,
            "trained": _trained(plan, t),
            "texts": texts[path],
            "tests": [list(test) for test in sorted(tests[path])],
        }
        for path in plan.paths("latents")
        if path in texts
        for t in [plan.targets[path]]
    ]


def threshold_rules(plan: Plan) -> dict[str, dict[str, Any]]:
    """The `threshold` of every file of kept fits, by path."""
    fits = [plan.targets[path] for path in plan.paths("probes")]
    return {t.path: dict(t.args.threshold) for t in fits if t.spec.keep}


def _trained(plan: Plan, latents: LatentTarget) -> str:
    """The artefact of these latents' SAE where it was trained here; a converted one has one too."""
    place = latents.args.sae
    made = plan.targets.get(place.artefact) if isinstance(place, MadePlace) else None
    return made.path if made is not None and is_trained(made) else ""
