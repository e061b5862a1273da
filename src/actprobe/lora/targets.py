"""From the config to the targets of the LoRA room: index, primitives, representations, probes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from actprobe import keys
from actprobe.config import nearest
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.lora import classes, collection, effort, labels, protocol
from actprobe.lora.catalog import CONTROLS, EVERY_LAYER, FAMILIES, REPRESENTATIONS, stored
from actprobe.plan import Target, target

log = logging.getLogger(__name__)

INDEX_VERSION = 4  # how names and scales are read; all that is computed from weights depends on it
PROBES_VERSION = 3


class Collection:
    """One entry of `loras` while the plan is made: its files, their digests and its index."""

    def __init__(self, config: Mapping[str, Any], name: str, memo: DigestMemo):
        self.name, self.options, self._config = name, config["loras"][name], config
        self.members = collection.members(name, self.options)
        self.digests = collection.digests(self.members, self.options["identity"], memo)
        self.files = collection.together(self.members, self.digests)
        self.content = {
            "files": self.files,
            "n": len(self.members),
            **self.reading(),
            "index": INDEX_VERSION,
        }
        if self.options.get("tables"):
            self.content["id"] = self.options["id"]
        params = {**self.content, "on_bad_file": self.options["on_bad_file"]}
        self.index = target(
            config["cache_dir"], "lora_index", INDEX_VERSION, name, params, loader=name, item=name,
            cost=len(self.members), ext="parquet",
        )  # fmt: skip
        self.primitives: dict[str, dict[str, Target]] = {}
        self.features: dict[str, Target] = {}

    def reading(self) -> dict[str, Any]:
        """Options that decide which files are refused, and their scales."""
        return {
            "alpha": self.options["alpha"],
            "extra_tensors": self.options["extra_tensors"],
            "ignore_settings": sorted(self.options["ignore_settings"]),
        }

    def shards(self) -> dict[str, slice]:
        """Names of the shards and the members in them; a table is a shard."""
        if self.options.get("tables"):
            return {m.id: slice(i, i + 1) for i, m in enumerate(self.members)}
        return collection.shards([m.place for m in self.members], self.options["shard_size"])

    def add_primitives(self, families: list[str]) -> list[Target]:
        """Targets of these families, one per shard."""
        for shard, at in self.shards().items():
            members, digests = self.members[at], self.digests[at]
            files = collection.together(members, digests)
            for family in families:
                params = {
                    "family": family,
                    "files": files,
                    "n": len(members),
                    "index": INDEX_VERSION,
                    **{k: v for k, v in self.reading().items() if k != "alpha"},
                    **self._rules(family),
                }
                self.primitives.setdefault(family, {})[shard] = target(
                    self._config["cache_dir"],
                    "lora_primitives",
                    FAMILIES[family].version,
                    f"{self.name}/{family}/{shard.replace('/', '_')}",
                    params,
                    loader=self.name,
                    item=f"{self.name}/{shard}",
                    inputs=[self.index],
                    args={"collection": self.name, "family": family, "shard": shard},
                    cost=FAMILIES[family].cost * len(members),
                )
        return [t for family in families for t in self.primitives[family].values()]

    def add_features(self, representation: str) -> Target:
        """The target of one stored representation; its key does not depend on the shards."""
        if representation in self.features:
            return self.features[representation]
        view = REPRESENTATIONS[representation]
        rules: dict[str, Any] = {**self.content, "on_bad_file": self.options["on_bad_file"]}
        for f in view.families:
            rules[f] = {"version": FAMILIES[f].version, **self._rules(f)}
        upstream = [self.primitives[f] for f in view.families]
        shards = [[s, [p[s].path for p in upstream]] for s in (upstream[0] if upstream else {})]
        self.features[representation] = t = target(
            self._config["cache_dir"],
            "features",
            view.version,
            f"{self.name}/{representation}",
            {"representation": representation, **rules},
            loader=self.name,
            item=f"{self.name}/{representation}",
            inputs=[self.index, *(t for p in upstream for t in p.values())],
            args={
                "collection": self.name,
                "representation": representation,
                "index": self.index.path,
                "shards": shards,
            },
            cost=len(self.members),
        )
        return t

    def _rules(self, family: str) -> dict[str, Any]:
        """Options that a family's numbers depend on."""
        rules: dict[str, Any] = {}
        if FAMILIES[family].scaled:
            rules["alpha"] = self.options["alpha"]
        if family == "sketch":
            rules["sketch"] = self.options["sketch"]
        return rules


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[Target]:
    """Targets of the stages lora_index, lora_primitives, features and lora_probes.

    Raises ConfigError naming the entry and what is wrong with it. No weights are read.
    """
    collections = {name: Collection(config, name, memo) for name in config.get("loras") or {}}
    probes = config.get("lora_probes") or {}
    wanted = {name: _representations(c) for name, c in collections.items()}
    for name, entry in probes.items():
        for c in _collections(name, entry, collections):
            wanted[c.name] = list(
                dict.fromkeys(
                    [*wanted[c.name], *_probed(name, entry, c), *entry["each_layer"], *CONTROLS]
                )
            )
    found: list[Target] = []
    for name, c in collections.items():
        kept = stored(wanted[name])
        families = {f for r in kept for f in REPRESENTATIONS[r].families}
        found.append(c.index)
        found += c.add_primitives([f for f in FAMILIES if f in families])
        found += [c.add_features(r) for r in kept]
    for name, entry in probes.items():
        for c in _collections(name, entry, collections):
            found += _probes(config, name, entry, c)
    return found


def _representations(c: Collection) -> list[str]:
    chosen = c.options["representations"]
    if chosen is None:
        return [r.name for r in REPRESENTATIONS.values() if r.default]
    for r in chosen:
        if r not in REPRESENTATIONS:
            where = f"loras.{c.name}.representations"
            raise ConfigError(f"{where}: unknown {r!r}; {nearest(r, REPRESENTATIONS)}")
    return chosen


def _collections(
    name: str, entry: Mapping[str, Any], collections: Mapping[str, Collection]
) -> list[Collection]:
    for c in entry["loras"]:
        if c not in collections:
            where = f"lora_probes.{name}.loras"
            raise ConfigError(f"{where}: unknown collection {c!r}; {nearest(c, collections)}")
    return [collections[c] for c in entry["loras"]]


def _probed(name: str, entry: Mapping[str, Any], c: Collection) -> list[str]:
    """The representations that an entry probes in a collection, without the controls."""
    chosen = entry["representations"]
    for key, named in (("representations", chosen or []), ("each_layer", entry["each_layer"])):
        for r in named:
            if r not in REPRESENTATIONS:
                where = f"lora_probes.{name}.{key}"
                raise ConfigError(f"{where}: unknown {r!r}; {nearest(r, REPRESENTATIONS)}")
    return _representations(c) if chosen is None else chosen


def _probes(
    config: Mapping[str, Any], name: str, entry: Mapping[str, Any], c: Collection
) -> list[Target]:
    """One target per representation, layer subset and method, controls included."""
    how = protocol.load(entry["protocol"])
    methods = entry["methods"] or [m for m, v in how["methods"].items() if v.get("default", True)]
    for m in methods:
        if m not in how["methods"]:
            where = f"lora_probes.{name}.methods"
            raise ConfigError(f"{where}: unknown {m!r}; {nearest(m, how['methods'])}")
    columns = labels.columns(entry, c.options)
    said = _labels(name, c, columns, entry["min_per_class"], how["split"])
    ignored = sorted({*entry["recipe_ignore"], *(v for v in columns.values() if v)})
    layers = {k: [v] if isinstance(v, str) else v for k, v in entry["layers"].items()}
    cells = {(r, k): v for r in _probed(name, entry, c) for k, v in layers.items()}
    if entry["each_layer"]:
        cells |= {(r, EVERY_LAYER): ["*"] for r in [*entry["each_layer"], "norm_only"]}
    cells |= {("norm_only", k): v for k, v in layers.items()}
    cells = {cell: v for cell, v in cells.items() if cell[0] != "recipe_only"}
    cells["recipe_only", "all"] = ["*"]
    found = []
    for (representation, subset), patterns in cells.items():
        parts = REPRESENTATIONS[representation].parts or (representation,)
        features = {p: c.add_features(p) for p in parts}
        width = effort.columns(representation, c.options["sketch"])
        readers = methods
        if representation == "recipe_only":  # a control must read what any classifier could
            readers = [*methods, *({protocol.CONTROL} - set(methods))]
        for method in readers:
            params = {
                "protocol": how["name"],
                "recipe": keys.spec_key(protocol.recipe(how, method)),
                "features": {p: t.key for p, t in features.items()},
                "labels": said,
                "min_per_class": entry["min_per_class"],
                "layers": EVERY_LAYER if subset == EVERY_LAYER else patterns,
                "method": method,
            }
            inputs = [c.index, *features.values()]
            if representation == "recipe_only":  # the same LoRAs as those that have weights
                inputs.append(c.features["norm_only"])
                params |= {"ignored": ignored, "usable": inputs[-1].key}
            args = {
                "probes": name,
                "collection": c.name,
                "index": c.index.path,
                "columns": columns,
                "min_per_class": entry["min_per_class"],
                "ignored": ignored,
                "usable": c.features["norm_only"].path,
                "representation": representation,
                "subset": subset,
                "layers": patterns,
                "method": method,
                "features": [t.path for t in features.values()],
                "protocol": entry["protocol"],
            }
            found.append(
                target(
                    config["cache_dir"],
                    "lora_probes",
                    PROBES_VERSION,
                    f"{name}/{c.name}/{representation}.{subset}.{method}",
                    params,
                    loader=f"{name}.{c.name}.{representation}",
                    item=f"{name}/{c.name}/{representation}/{subset}",
                    inputs=inputs,
                    args=args,
                    ext="parquet",
                    cost=effort.seconds(how, method, len(c.members), width, subset),
                )
            )
    return found


def _labels(
    name: str,
    c: Collection,
    columns: Mapping[str, str | None],
    least: int | None,
    rule: Mapping[str, Any],
) -> Any:
    """What identifies the labels: a digest of the columns that are read.

    Raises ConfigError where they cannot be probed, as far as that is known without reading a file:
    classes that are too small now do not grow when files turn out to be refused.
    """
    if c.options.get("tables"):
        return {"tables": c.files, **columns}
    rows = collection.labels(c.name, c.options, [v for v in columns.values() if v])
    if not any(m.id in rows for m in c.members):
        raise ConfigError(
            f"loras.{c.name}.labels: no row of {c.options['labels']} is about one of the files; "
            f"the files are called {c.members[0].id!r}, …, the rows {next(iter(rows), '')!r}, …"
        )
    missing = [m.id for m in c.members if not rows.get(m.id, [""])[0]]
    if missing:
        log.warning("lora_probes.%s: %d of %d files of %s have no %s and are left out, e.g. %s", name,
                    len(missing), len(c.members), c.name, columns["label"], missing[0])  # fmt: skip
    used = [k for k, v in columns.items() if v]
    labelled = [dict(zip(used, rows[m.id], strict=True)) for m in c.members if m.id in rows]
    if why := classes.problem(labelled, least, rule):
        raise ConfigError(f"lora_probes.{name}: {c.name}: {why}")
    if why := classes.doubt(labelled, least, rule):
        log.warning("lora_probes.%s: %s: %s", name, c.name, why)
    if few := classes.smaller(labelled, least):
        log.warning("lora_probes.%s: %d classes of %s with fewer than %d LoRAs are left out, e.g. %s",
                    name, len(few), c.name, least, min(few))  # fmt: skip
    return collection.labels_digest(used, rows, [m.id for m in c.members])
