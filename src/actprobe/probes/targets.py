"""From the config to probe targets: one per protocol, setting, source, dataset and method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan
from actprobe.cache.plan import Target
from actprobe.config import matching
from actprobe.lora import Collection
from actprobe.probes import elsewhere, evaluations, feature_targets, refusals
from actprobe.probes import protocol as protocols
from actprobe.probes.evaluations import EvaluationTarget
from actprobe.probes.records import FeatureTarget, FitArgs, FitSpec, FitTarget
from actprobe.probes.stage import VERSION, fitted, labelled, once, same
from actprobe.probes.useless import without_models

# Weights that balance work: CPU seconds of one fit with its search at n_train 1024, d 384.
_SECONDS = {
    "logreg": 0.8,
    "svm": 0.8,
    "lda": 0.5,
    "pca": 0.1,
    "knn": 0.2,
    "mlp": 0.5,
    "xgboost": 18.0,
    "attention": 60.0,
    "direction": 1.0,
}
_K_SPARSE = {"saga": 70.0, "liblinear": 1.8}  # all k up to 512

Matrices = Mapping[str, Mapping[str, list[Target]]]  # source -> dataset -> activations or latents


def targets(
    config: Mapping[str, Any],
    known: Mapping[str, list[Target]],
    memo: DigestMemo,
    loras: Mapping[str, Collection] | None = None,
) -> list[Target[Any, Any]]:
    """Every probe result that the config's `probes` list asks for: fits, and evaluations of fits.

    A source is probed by the methods that read its kind: activations or SAE latents, of one vector
    per text or of all its tokens, or features of LoRA weights (loras: their collections). Raises
    ConfigError for a protocol, setting, method, source or dataset that does not exist, with the nearest
    one that does, and for a setting or a named method that would run nothing. A dataset that suits no
    fit is marked (see `useless`).
    """
    texts = {t.item: t for t in known.get("texts", [])}
    kinds = {
        kind: _by_source(
            t for t in known.get(stage, []) if (t.args["position"] == "tokens") == of_tokens
        )
        for kind, stage, of_tokens in (
            ("activations", "activations", False),
            ("tokens", "activations", True),
            ("latents", "latents", False),
            ("token_latents", "latents", True),
        )
    }
    for of in kinds.values():
        if elsewhere.TEXTS in of:
            raise ConfigError(
                f"a source is called {elsewhere.TEXTS!r}, which stands for the texts themselves; call "
                "the array or SAE differently"
            )
    kinds["texts"] = {elsewhere.TEXTS: {name: [t] for name, t in texts.items()}}
    found: list[FitTarget] = []
    of_features: list[FeatureTarget] = []
    applied: dict[int, list[FitTarget]] = defaultdict(list)  # by number of the entry
    places: dict[str, str] = {}
    for n, entry in enumerate(config.get("probes") or []):
        where = f"probes[{n}]"
        protocol = protocols.load(entry["protocol"])
        if protocols.reads_features(protocol):
            refusals.check_named(protocol, entry, where)
            refusals.check_ignored(protocol, entry, where)
            of_features += feature_targets.targets(config, entry, where, loras or {})
            continue
        refusals.check_of_collections(entry, where)
        for t in _entry(config, entry, where, texts, kinds):
            found.append(t)
            if entry["apply_to"] and not t.args.applied:
                applied[n].append(t)
            if t.args.applied and places.setdefault(t.name, t.path) != t.path:
                raise ConfigError(
                    f"probes[{n}]: {t.name} is asked for twice with different settings; make one of "
                    "them an experiment of its own (they share the cache)"
                )
    of_features = once(of_features)
    feature_targets.check_names(of_features)
    fits = without_models(once(found), texts.values())
    tried = _tried(config, applied, fits, texts, kinds)
    return [*fits, *of_features, *{t.path: t for t in tried}.values()]


def _tried(
    config: Mapping[str, Any],
    applied: Mapping[int, list[FitTarget]],
    fits: Iterable[FitTarget],
    texts: Mapping[str, Target],
    kinds: Mapping[str, Matrices],
) -> Iterator[EvaluationTarget]:
    """The evaluations of entries with `apply_to`, whose fits another entry may keep."""
    useful: dict[str, list[FitTarget]] = defaultdict(list)
    for t in fits:
        if t.args.unfit is None:
            useful[t.name].append(t)
    for n, found in applied.items():
        own = [t for asked in found for t in useful[asked.name] if same(t, asked)]
        yield from evaluations.targets(
            config, config["probes"][n], own, texts, kinds, f"probes[{n}]"
        )


def _by_source(matrices: Iterable[Target]) -> Matrices:
    found: dict[str, dict[str, list[Target]]] = defaultdict(lambda: defaultdict(list))
    for t in matrices:
        found[t.args["source"]][t.item].append(t)
    return found


def _entry(
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    where: str,
    texts: Mapping[str, Target],
    kinds: Mapping[str, Matrices],
) -> Iterator[FitTarget]:
    protocol = protocols.load(entry["protocol"])
    ignores = protocol["split"].get("groups") == "ignore"
    refusals.check_named(protocol, entry, where)
    refusals.check_ignored(protocol, entry, where)
    elsewhere.check_keys(protocol, entry, where)
    if protocols.tests_elsewhere(protocol):
        for setting, method, data in elsewhere.fits(protocol, entry, texts, kinds, where):
            recipe = protocols.recipe(protocol, setting, method)
            if refusals.check_kind(recipe, method, setting, entry, data, where):
                yield _target(config, entry, setting, method, data)
        return
    sources = matching(entry["sources"], _sources(protocol, kinds), where, "source")
    datasets = set(matching(entry["datasets"], texts, where, "dataset"))
    for method in entry["methods"] or []:
        reads = protocol["methods"][method]["reads"]
        if not any(
            elsewhere.reads(protocol["methods"][method], kind) and s in of
            for kind, of in kinds.items()
            for s in sources
        ):
            raise ConfigError(
                f"{where}: {method} reads {reads}, and no source here is of that kind"
            )
    ran: set[tuple[str, str]] = set()
    models = config.get("models") or {}
    for setting in entry["settings"]:
        tests = _test_sets(protocol, setting, datasets, texts, where)
        for kind, of in kinds.items():
            methods = _methods(protocol, setting, entry["methods"], kind)
            for source in sources:
                for dataset in of.get(source, {}):
                    if dataset not in datasets or (tests is not None and dataset not in tests):
                        continue
                    if ignores:
                        refusals.check_parted(
                            protocol, entry, texts[dataset], tests is not None, where
                        )
                    data = _data(texts, of[source], dataset, tests, where)
                    refusals.check_bos(protocol, models, data, where)
                    for method in methods:
                        ran.add((setting, method))
                        recipe = protocols.recipe(protocol, setting, method)
                        if not refusals.check_kind(recipe, method, setting, entry, data, where):
                            continue
                        yield _target(config, entry, setting, method, data)
    _check_ran(protocol, entry, ran, where)


def _sources(protocol: Mapping[str, Any], kinds: Mapping[str, Matrices]) -> list[str]:
    """Names of sources; the texts themselves where a method reads them."""
    reads_texts = any(how["reads"] == "texts" for how in protocol["methods"].values())
    return [s for k, of in kinds.items() for s in of if k != "texts" or reads_texts]


def _check_ran(
    protocol: Mapping[str, Any], entry: Mapping[str, Any], ran: set[tuple[str, str]], where: str
) -> None:
    """Refuse a named method and a setting of an entry that select nothing."""
    reads = {m: how["reads"] for m, how in protocol["methods"].items()}
    runs = {
        s: [m for m in reads if m in _methods(protocol, s, [m], reads[m])]
        for s in protocol["settings"]
    }
    for method in entry["methods"] or []:
        if not any(m == method for _, m in ran):
            settings = ", ".join(s for s in runs if method in runs[s])
            raise ConfigError(
                f"{where}: {method} would not run. It reads {reads[method]}, in the settings "
                f"{settings}: name one of these, and a source of that kind that has these datasets, "
                f"or leave {method} out"
            )
    for setting in entry["settings"]:
        if not any(s == setting for s, _ in ran):
            methods = ", ".join(f"{m} (reads {reads[m]})" for m in runs[setting])
            raise ConfigError(
                f"{where}: setting {setting} would run nothing. Its methods are {methods}: name some, "
                "and sources of their kind that have these datasets, or leave the setting out"
            )


def _methods(
    protocol: Mapping[str, Any], setting: str, asked: list[str] | None, kind: str
) -> list[str]:
    """The methods to run on sources of a kind: those asked for, or the protocol's default ones.

    Methods that read tokens run only in a setting that names them.
    """
    one_vector = [
        m
        for m, how in protocol["methods"].items()
        if how["reads"] not in ("tokens", "token_latents")
    ]
    allowed = protocol["settings"][setting].get("methods", one_vector)
    return [
        name
        for name, method in protocol["methods"].items()
        if name in allowed
        and (method["reads"] == kind or elsewhere.reads(method, kind))
        and (method.get("default", True) if asked is None else name in asked)
    ]


def _test_sets(
    protocol: Mapping[str, Any],
    setting: str,
    datasets: set[str],
    texts: Mapping[str, Target],
    where: str,
) -> dict[str, str] | None:
    """For a setting with test sets of their own: dataset -> test set, where the config has it."""
    pattern = protocol["settings"][setting].get("test_set")
    if pattern is None:
        return None
    named = {d: pattern.format(dataset=d) for d in sorted(datasets)}
    found = {d: t for d, t in named.items() if t in texts}
    if not found:
        raise ConfigError(
            f"{where}: setting {setting} tests each dataset on {pattern!r}; none of these is "
            f"defined: {', '.join(list(named.values())[:5])}"
        )
    for dataset, test in found.items():
        if texts[test].args.rows == texts[dataset].args.rows:
            raise ConfigError(f"{where}: {test} has the rows of {dataset}: no test set of its own")
    return found


def _data(
    texts: Mapping[str, Target],
    matrices: Mapping[str, list[Target]],
    dataset: str,
    tests: Mapping[str, str] | None,
    where: str,
) -> dict[str, Target]:
    """The artefacts of one fit by role."""
    data = {"texts": texts[dataset], "matrix": plan.only(matrices[dataset], where)}
    if tests is not None:
        test = tests[dataset]
        if test not in matrices:
            source = data["matrix"].args["source"]
            raise ConfigError(f"{where}: {source} is not computed for {test}, the test set")
        data |= {"test_texts": texts[test], "test_matrix": plan.only(matrices[test], where)}
    return data


def _target(
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    setting: str,
    method: str,
    data: Mapping[str, Target],
) -> FitTarget:
    protocol, matrix = protocols.load(entry["protocol"]), data["matrix"]
    name, applied = protocol["name"], protocols.tests_elsewhere(protocol)
    place = _place(matrix)
    source, dataset = place["source"], labelled(matrix.item, entry)
    more: dict[str, Any] = {}
    keys: dict[str, Any] = {role: t.identity for role, t in data.items()}
    paths: dict[str, Any] = {role: t.path for role, t in data.items()}
    if "test_texts" in data:
        more |= _tested(data, place["position"])
        dataset += f"@{more['condition']}" if applied else ""
    if "compare_texts" in data:
        more["compare_with"] = data["compare_texts"].item
        more["skips"] = config["on_bad_dataset"] == "skip"
    spec = FitSpec(**fitted(entry, setting, method), **keys)
    args = FitArgs(
        source=source,
        dataset=matrix.item,
        model=place["model"],
        site=place["site"],
        position=place["position"],
        protocol=entry["protocol"],
        threshold=entry["threshold"],
        applied=applied,
        **paths,
        **more,
    )
    loaded = source if matrix.stage == "latents" else place["model"] or source
    return plan.target(
        config["cache_dir"],
        "probes",
        VERSION,
        f"{name}/{setting}/{source}/{dataset}.{method}",
        spec,
        loader=f"{name}.{setting}.{loaded}",
        item=matrix.item,
        inputs={t.path: t for t in data.values()}.values(),
        args=args,
        ext="parquet",
        cost=_cost(entry["protocol"], setting, method),
    )


def _place(matrix: Target) -> dict[str, str]:
    """Where a probe reads: source, model, site and position; of texts the first alone."""
    if matrix.stage == "texts":
        return {"source": elsewhere.TEXTS, "model": "", "site": "", "position": ""}
    return {k: matrix.args[k] for k in ("source", "model", "site", "position")}


def _tested(data: Mapping[str, Target], position: str) -> dict[str, str]:
    """The test set of a fit, the position at which it is read, and the name of both."""
    test_set, at = data["test_texts"].item, _place(data["test_matrix"])["position"]
    condition = test_set if at == position else f"{test_set}@{at}"
    return {"test_set": test_set, "score_at": at, "condition": condition}


@cache
def _cost(protocol: str, setting: str, method: str) -> float:
    recipe = protocols.recipe(protocols.load(protocol), setting, method)
    seconds = _SECONDS.get(recipe["method"]["family"], 0.1)
    if "ks" in recipe["method"]:
        solver = recipe["method"].get("solver", {}).get("solver")
        seconds = _K_SPARSE.get(solver, _K_SPARSE["liblinear"]) * recipe["method"]["ks"][-1] / 512
    return seconds * len(recipe["seeds"]) * len(recipe["setting"].get("values", [None]))
