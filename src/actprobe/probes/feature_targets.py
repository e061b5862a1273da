"""From `probes` to targets on features of LoRA weights: per representation, columns and method.

The controls recipe_only and norm_only are always probed beside the representations that are asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from actprobe import lora
from actprobe.base.errors import ConfigError
from actprobe.cache import plan
from actprobe.cache.plan import Target
from actprobe.config import matching
from actprobe.probes import collections, effort
from actprobe.probes import protocol as protocols
from actprobe.probes.records import FeatureArgs, FeatureSpec, FeatureTarget
from actprobe.probes.stage import VERSION, fitted, labelled

EACH = "each"  # in the column `columns`: every module by itself
OWN = (
    "label",
    "group",
    "min_per_class",
    "each_column_group",
)  # keys that are about collections alone


def asked(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Collection -> the representations that `probes` reads, controls included.

    Raises ConfigError for a source that does not exist, with the nearest one that does.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for n, entry in enumerate(config.get("probes") or []):
        if protocols.reads_features(protocols.load(entry["protocol"])):
            for collection, names in _sources(config, entry, f"probes[{n}]").items():
                found[collection] |= dict.fromkeys((*names, *lora.CONTROLS))
    return {collection: list(names) for collection, names in found.items()}


def _sources(
    config: Mapping[str, Any], entry: Mapping[str, Any], where: str
) -> dict[str, list[str]]:
    """Collection -> representations. A pattern stands for those that `loras` computes; one that is
    written out is computed for it."""
    loras = config.get("loras") or {}
    if not loras:
        raise ConfigError(
            f"{where}: {entry['protocol']} reads features of LoRA weights; `loras` has no collection"
        )
    every = {f"{c}/{r}" for c in loras for r in lora.REPRESENTATIONS}
    computed = [f"{c}/{r}" for c, options in loras.items() for r in lora.computed(c, options)]
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for pattern in entry["sources"]:
        known = [pattern] if pattern in every else computed
        if known is computed and "/" in pattern and not set("*?[") & set(pattern):
            known = sorted(every)  # for the nearest name
        for name in matching([pattern], known, where, "source of features"):
            collection, _, representation = name.partition("/")
            found[collection][representation] = None
    return {collection: list(names) for collection, names in found.items()}


def targets(
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    where: str,
    loras: Mapping[str, lora.Collection],
) -> Iterator[FeatureTarget]:
    """The targets of one entry of `probes` whose protocol reads features."""
    protocol = protocols.load(entry["protocol"])
    methods = entry["methods"] or [
        m for m, how in protocol["methods"].items() if how.get("default", True)
    ]
    if entry["datasets"] != ["*"]:
        raise ConfigError(f"{where}: `datasets` are texts; LoRAs are chosen by `sources`")
    for name, representations in _sources(config, entry, where).items():
        labelling = collections.planned(loras[name], entry, protocol["split"], where)
        for setting in entry["settings"]:
            for representation, columns in _cells(entry, representations):
                # A control must read what any classifier could.
                more = [protocols.CONTROL] if representation == "recipe_only" else []
                for method in dict.fromkeys([*methods, *more]):
                    yield _target(
                        config["cache_dir"], entry, setting, method, loras[name], labelling,
                        representation, columns,
                    )  # fmt: skip


def _cells(
    entry: Mapping[str, Any], representations: Iterable[str]
) -> Iterator[tuple[str, list[str] | str]]:
    """Representations and columns: patterns of modules, or EACH."""
    read = [r for r in representations if r not in lora.CONTROLS] + ["norm_only"]
    patterns = [[c] if isinstance(c, str) else list(c) for c in entry["columns"]]
    for representation in read:
        for columns in patterns:
            yield representation, columns
        if entry["each_column_group"]:
            yield representation, EACH
    yield "recipe_only", ["*"]


def _target(
    cache_dir: str,
    entry: Mapping[str, Any],
    setting: str,
    method: str,
    collection: lora.Collection,
    labelling: collections.Labelling,
    representation: str,
    columns: list[str] | str,
) -> FeatureTarget:
    protocol = protocols.load(entry["protocol"])
    name, recipe = protocol["name"], protocols.recipe(protocol, setting, method)
    features = collection.parts(representation)
    source, subset = f"{collection.name}/{representation}", named(columns)
    of_fit = fitted(entry, setting, method)
    if columns == EACH and entry["keep"] is None:
        of_fit["keep"] = False  # a fit for each module, of which there are hundreds
    inputs = [collection.index, *features.values()]
    parts = lora.MODULES if columns == EACH else 1
    width = lora.width(representation, collection.options["sketch"])
    n = len(collection.members)
    ignored: tuple[str, ...] | None = None
    usable: Target | None = None
    if representation == "recipe_only":  # the same LoRAs as those that have weights
        left_out = {*collection.options["recipe_ignore"], *labelling.columns.values()}
        ignored = tuple(sorted(c for c in left_out if c is not None))
        usable = collection.features["norm_only"]
        inputs.append(usable)
    spec = FeatureSpec(
        **of_fit,
        features={p: t.key for p, t in features.items()},
        table=labelling.content,
        min_per_class=labelling.least,
        columns=columns if isinstance(columns, str) else tuple(columns),
        ignored=ignored,
        usable=None if usable is None else usable.key,
    )
    args = FeatureArgs(
        source=source,
        dataset=labelling.name,
        protocol=entry["protocol"],
        threshold=entry["threshold"],
        collection=collection.name,
        representation=representation,
        kept_bytes=effort.kept_bytes(recipe, n, width, parts) if spec.keep else 0.0,
        columns_named=subset,
        patterns=("*",) if isinstance(columns, str) else tuple(columns),
        features=tuple(t.path for t in features.values()),
        index=collection.index.path,
        ignored=ignored or (),
        usable=None if usable is None else usable.path,
        **labelling.args(collection.options),
    )
    slug = "" if subset == "*" else "@" + re.sub(r"\W+", "_", subset).strip("_")
    return plan.target(
        cache_dir,
        "probes",
        VERSION,
        f"{name}/{setting}/{source}/{labelled(labelling.name, entry)}{slug}.{method}",
        spec,
        loader=f"{name}.{setting}.{source}",
        item=f"{source}/{subset}",
        inputs=inputs,
        args=args,
        ext="parquet",
        cost=effort.seconds(recipe, n, width, parts),
    )


def check_names(found: Iterable[FeatureTarget]) -> None:
    """Refuse entries whose rows would have one name in the results and other labels."""
    seen: dict[tuple[str, str], Any] = {}
    for t in found:
        what = t.spec.table, t.spec.min_per_class
        place = t.spec.protocol, t.args.dataset
        if seen.setdefault(place, what) != what:
            raise ConfigError(
                f"probes: two entries with {place[0]} read {place[1]} with another `min_per_class`; "
                "write one number in both, or name the collection a second time in `loras`"
            )


def named(columns: list[str] | str) -> str:
    """A subset of columns in the results."""
    return columns if isinstance(columns, str) else ", ".join(columns)
