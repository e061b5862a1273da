"""The files of an experiment's results: `{results_dir}/{experiment}/…`, without keys in names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actprobe.probes import extensions, protocol, tested

if TYPE_CHECKING:
    from actprobe.plan import Plan, Target

TABLES = {
    "probes_csv": "tables/probes.csv",
    "probes": "tables/probes.parquet",
    "summary": "tables/summary.csv",
    "comparisons": "tables/comparisons.csv",
    "quiver": "tables/quiver.csv",
    "datasets": "tables/datasets.csv",
    "skipped": "tables/skipped.csv",
    "provenance": "tables/provenance.csv",
}
REPORT = "report.html"
FEATURE_TABLES = {
    "representations": "tables/representations.csv",
    "modules": "tables/modules.csv",
    "choices": "tables/choices.csv",
    "confusion": "tables/confusion.csv",
    "refused": "tables/refused.csv",
}
FEATURES = ("representations", "modules", "confusion")
SAE_TABLES = {"saes": "tables/saes.csv", "sae_training": "tables/sae_training.csv"}
TRANSFER_TABLES = {"transfer": "tables/transfer.csv"}
ROW_TABLES = {"scores": "tables/scores.parquet", "errors": "tables/errors.csv"}  # of kept fits
ALWAYS = ("scores_by_layer", "scores_by_dataset", "quiver", "leakage")
WITH_SAES = ("sae_scatter", "sae_by_dataset", "scores_by_k")
TRAINING = "sae_training"
OF_SETTINGS = ("scarcity", "imbalance", "label_noise", "ood")


def folder(config: Mapping[str, Any]) -> str:
    """The folder that holds the results of this config's experiment."""
    return f"{config['results_dir']}/{config['experiment']}"


def figure_files(root: str, names: Iterable[str]) -> dict[str, str]:
    """The files of figures below a results folder, by name and format."""
    return {f"{n}_{ext}": f"{root}/figures/{n}.{ext}" for n in names for ext in ("svg", "png")}


def figures(settings: Collection[str], saes: bool) -> list[str]:
    """Which figures results of these settings, with or without SAE probes, call for."""
    return [*ALWAYS, *(WITH_SAES if saes else ()), *(s for s in OF_SETTINGS if s in settings)]


def figures_of(config: Mapping[str, Any]) -> list[str]:
    """The figures that a config calls for."""
    entries = _entries(config)
    settings = {s for entry in entries if not reads_features(entry) for s in entry["settings"]}
    saes = (config.get("saes") or {}).values()
    trained = [TRAINING] if any(s.get("train") for s in saes) else []
    found = figures(settings, bool(saes)) if settings or not entries else []
    return [*found, *trained, *(FEATURES if has_features(config) else ())]


def reads_features(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `probes` is about features of LoRA weights."""
    return "protocol" in entry and protocol.reads_features(protocol.load(entry["protocol"]))


def has_features(config: Mapping[str, Any]) -> bool:
    """Whether a config probes features of LoRA weights."""
    return any(map(reads_features, _entries(config)))


def has_evaluations(config: Mapping[str, Any]) -> bool:
    """Whether fits of a config are tried on collections of `apply_to`."""
    applied = [e["protocol"] for e in _entries(config) if e.get("apply_to")]
    return not all(protocol.tests_elsewhere(protocol.load(name)) for name in applied)


def _entries(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The `probes` of a config, whose protocols may name what files of `extensions` register."""
    extensions.loaded(config)
    return config.get("probes") or ()


def tables_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a config's results: name -> path below its folder."""
    found = TABLES | (SAE_TABLES if config.get("saes") else {})
    found |= TRANSFER_TABLES if has_evaluations(config) else {}
    found |= ROW_TABLES if _entries(config) else {}
    return found | (FEATURE_TABLES if has_features(config) else {})


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
            "sae": t.args["source"],
            "dataset": t.item,
            **{k: t.args[k] for k in ("model", "site", "position")},
            "latents": path,
            "trained": t.args["sae"].get("artefact", "") if _is_trained(plan, t) else "",
            "texts": texts[path],
            "tests": [list(test) for test in sorted(tests[path])],
        }
        for path in plan.paths("latents")
        if path in texts
        for t in [plan.targets[path]]
    ]


def _is_trained(plan: Plan, latents: Target) -> bool:
    """Whether the SAE of these latents was trained here; a converted one has an artefact too."""
    made = plan.targets.get(latents.args["sae"].get("artefact", ""))
    return made is not None and made.args.get("make") == "train"


def outputs(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Output files by kind ("tables", "figures", "report") and name, for rules and library alike.

    The names are identifiers, so that a rule can say `output: **outputs(config)["tables"]`.
    """
    root = folder(config)
    return {
        "tables": {name: f"{root}/{path}" for name, path in tables_of(config).items()},
        "figures": figure_files(root, figures_of(config)),
        "report": {"html": f"{root}/{REPORT}"},
    }
