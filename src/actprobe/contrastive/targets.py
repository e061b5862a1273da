"""Config section `contrastive` to targets: directions of each source, and baselines from text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from actprobe import plan
from actprobe.config import matching, nearest
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.plan import Target

STAGE, BASELINES = "contrastive", "baselines"
VERSION = 3
BASELINES_VERSION = 3
METHODS = ("mean_difference", "logreg", "lda")

BySource = Mapping[str, Mapping[str, list[Target]]]  # source -> dataset -> activations


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[Target]:
    """For every entry one target per source (stage `contrastive`), and one per validation set with
    what its texts tell without a model (stage `baselines`).

    Raises ConfigError naming the entry for a dataset or source that does not exist, and for a
    validation set without the activations that it would be scored on, for activations of one name
    that mean two things, and for directions that are asked for twice with different settings.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    sources: dict[str, dict[str, list[Target]]] = defaultdict(lambda: defaultdict(list))
    for t in known.get("activations", []):
        if t.args["site"]:  # a direction is one of a model
            sources[t.args["source"]][t.item].append(t)
    found: dict[str, Target] = {}
    runs: dict[tuple[str, ...], str] = {}
    for n, entry in enumerate(config.get("contrastive") or []):
        for t in _entry(config["cache_dir"], entry, f"contrastive[{n}]", texts, sources):
            found.setdefault(t.path, t)
            place = (t.stage, t.name, t.args.get("score_at", ""))
            if runs.setdefault(place, t.path) != t.path:
                raise ConfigError(
                    f"contrastive[{n}]: {t.name} is asked for twice with different settings; make "
                    "one of them an experiment of its own (they share the cache)"
                )
    return list(found.values())


def _entry(
    cache_dir: str,
    entry: Mapping[str, Any],
    where: str,
    texts: Mapping[str, Target],
    sources: BySource,
) -> Iterator[Target]:
    train, compare = entry["train"], entry["compare_with"]
    for key, names in (("train", [train]), ("compare_with", [compare] if compare else [])):
        for name in names:
            if name not in texts:
                raise ConfigError(f"{where}.{key}: no dataset {name!r}; {nearest(name, texts)}")
    validate = matching(entry["validate"], texts, f"{where}.validate", "dataset")
    if train in validate or compare in validate:
        raise ConfigError(
            f"{where}: {train if train in validate else compare} cannot be its own validation set"
        )
    trained = [s for s, of in sources.items() if train in of]
    for source in matching(entry["sources"], trained, f"{where}.sources", f"source of {train}"):
        yield _directions(cache_dir, entry, where, source, validate, texts, sources)
    for dataset in validate:
        yield _baselines(cache_dir, entry, texts[train], texts[dataset])


def _directions(
    cache_dir: str,
    entry: Mapping[str, Any],
    where: str,
    source: str,
    validate: list[str],
    texts: Mapping[str, Target],
    sources: BySource,
) -> Target:
    train, compare = entry["train"], entry["compare_with"]
    own = sources[source][train][0]
    at = f"{own.args['model']}/{own.args['site']}.{entry['score_at'] or own.args['position']}"

    def data(role: str, dataset: str, source: str) -> dict[str, Target]:
        if dataset not in sources.get(source, {}):
            raise ConfigError(f"{where}.{role}: {source} is not computed for {dataset}")
        found = plan.only(sources[source][dataset], f"{where}.{role}")
        return {"texts": texts[dataset], "activations": found}

    used = {
        "train": data("train", train, source),
        **{f"validate.{v}": data("validate", v, at) for v in validate},
    }
    if compare:
        used["compare_with"] = data("compare_with", compare, source)
    params = {
        "methods": [m for m in METHODS if m in entry["methods"]],
        **{k: entry[k] for k in ("positive", "C", "folds", "seed")},
        "controls": dict(entry["controls"]),
        "data": {role: {k: t.identity for k, t in of.items()} for role, of in used.items()},
    }
    args = {
        **{k: own.args[k] for k in ("source", "model", "site", "position")},
        "train": train,
        "score_at": entry["score_at"] or own.args["position"],
        "compare_with": compare,
        "data": {role: {k: t.path for k, t in of.items()} for role, of in used.items()},
    }
    return plan.target(
        cache_dir,
        STAGE,
        VERSION,
        f"{source}/{train}",
        params,
        loader=own.args["model"],
        item=source,
        inputs=[t for of in used.values() for t in of.values()],
        args=args,
        cost=sum(t.cost for of in used.values() for t in of.values()),
    )


def _baselines(cache_dir: str, entry: Mapping[str, Any], train: Target, dataset: Target) -> Target:
    params = {
        "train": train.identity,
        "dataset": dataset.identity,
        "positive": entry["positive"],
    }
    return plan.target(
        cache_dir,
        BASELINES,
        BASELINES_VERSION,
        f"{train.item}/{dataset.item}",
        params,
        loader="texts",
        item=dataset.item,
        inputs=[train, dataset],
        args={"train": train.path, "dataset": dataset.path, "positive": entry["positive"]},
        ext="parquet",
        cost=train.cost + dataset.cost,
    )
