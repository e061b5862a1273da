"""From the config to the targets of the LoRA room: index, primitives, representations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import target
from actprobe.config import nearest
from actprobe.lora import collection
from actprobe.lora.catalog import FAMILIES, REPRESENTATIONS, stored
from actprobe.lora.records import (
    FamilySpec,
    FeaturesArgs,
    FeaturesSpec,
    FeaturesTarget,
    IndexArgs,
    IndexSpec,
    IndexTarget,
    PrimitivesArgs,
    PrimitivesSpec,
    PrimitivesTarget,
    Rules,
    Shard,
    Sketch,
    Told,
)

INDEX_VERSION = 4  # how names and scales are read; all that is computed from weights depends on it


class Collection:
    """One entry of `loras` while the plan is made: its files, their digests and its index."""

    def __init__(self, config: Mapping[str, Any], name: str, memo: DigestMemo):
        self.name, self.options, self._cache_dir = name, config["loras"][name], config["cache_dir"]
        self.members = collection.members(name, self.options)
        self.digests = collection.digests(self.members, self.options["identity"], memo)
        self.files = collection.together(self.members, self.digests)
        self.rules = Rules.of(self.options)
        spec = IndexSpec(
            files=self.files,
            n=len(self.members),
            rules=self.rules,
            index=INDEX_VERSION,
            on_bad_file=self.options["on_bad_file"],
            id=self.options["id"] if self.options.get("tables") else None,
        )
        self.index: IndexTarget = target(
            self._cache_dir, "lora_index", INDEX_VERSION, name, spec, loader=name, item=name,
            args=IndexArgs(), cost=len(self.members), ext="parquet",
        )  # fmt: skip
        self.primitives: dict[str, dict[str, PrimitivesTarget]] = {}
        self.features: dict[str, FeaturesTarget] = {}

    def shards(self) -> dict[str, slice]:
        """Names of the shards and the members in them; a table is a shard."""
        if self.options.get("tables"):
            return {m.id: slice(i, i + 1) for i, m in enumerate(self.members)}
        return collection.shards([m.place for m in self.members], self.options["shard_size"])

    def add_primitives(self, families: list[str]) -> list[PrimitivesTarget]:
        """Targets of these families, one per shard."""
        for shard, at in self.shards().items():
            members, digests = self.members[at], self.digests[at]
            files = collection.together(members, digests)
            for family in families:
                spec = PrimitivesSpec(
                    **vars(self._family(family)),
                    family=family,
                    files=files,
                    n=len(members),
                    index=INDEX_VERSION,
                    extra_tensors=self.rules.extra_tensors,
                    ignore_settings=self.rules.ignore_settings,
                )
                self.primitives.setdefault(family, {})[shard] = target(
                    self._cache_dir,
                    "lora_primitives",
                    spec.version,
                    f"{self.name}/{family}/{shard.replace('/', '_')}",
                    spec,
                    loader=self.name,
                    item=f"{self.name}/{shard}",
                    inputs=[self.index],
                    args=PrimitivesArgs(collection=self.name, shard=shard),
                    cost=FAMILIES[family].cost * len(members),
                )
        return [t for family in families for t in self.primitives[family].values()]

    def add_features(self, representation: str) -> FeaturesTarget:
        """The target of one stored representation; its key does not depend on the shards."""
        if representation in self.features:
            return self.features[representation]
        view = REPRESENTATIONS[representation]
        spec = FeaturesSpec(
            **vars(self.index.spec),
            representation=representation,
            families={f: self._family(f) for f in view.families},
        )
        upstream = [self.primitives[f] for f in view.families]
        args = FeaturesArgs(
            collection=self.name,
            index=self.index.path,
            shards=tuple(
                Shard(name=s, primitives=tuple(p[s].path for p in upstream))
                for s in (upstream[0] if upstream else ())
            ),
        )
        self.features[representation] = t = target(
            self._cache_dir,
            "features",
            view.version,
            f"{self.name}/{representation}",
            spec,
            loader=self.name,
            item=f"{self.name}/{representation}",
            inputs=[self.index, *(t for p in upstream for t in p.values())],
            args=args,
            cost=len(self.members),
        )
        return t

    def parts(self, representation: str) -> dict[str, FeaturesTarget]:
        """The stored representations that one is made of, by name."""
        names = REPRESENTATIONS[representation].parts or (representation,)
        return {p: self.add_features(p) for p in names}

    def tell(self, told: Told) -> None:
        """Let the job of the index warn of classes that are too small; see `index.run`."""
        self.index = replace(self.index, args=IndexArgs(told=(*self.index.args.told, told)))

    def _family(self, family: str) -> FamilySpec:
        """What a family's numbers depend on."""
        return FamilySpec(
            version=FAMILIES[family].version,
            alpha=self.rules.alpha if FAMILIES[family].scaled else None,
            sketch=Sketch.of(self.options) if family == "sketch" else None,
        )


def collections(config: Mapping[str, Any], memo: DigestMemo) -> dict[str, Collection]:
    """The collections of a config. Raises ConfigError naming one that cannot be found."""
    return {name: Collection(config, name, memo) for name in config.get("loras") or {}}


def targets(
    found: Mapping[str, Collection], asked: Mapping[str, Iterable[str]] | None = None
) -> list[PrimitivesTarget | FeaturesTarget]:
    """Targets of the stages lora_primitives and features; that of lora_index is `Collection.index`.

    asked: representations that probes read of a collection besides those that its entry computes. No
    weights are read.
    """
    made: list[PrimitivesTarget | FeaturesTarget] = []
    for name, c in found.items():
        wanted = [*computed(name, c.options), *((asked or {}).get(name) or ())]
        kept = stored(list(dict.fromkeys(wanted)))
        families = {f for r in kept for f in REPRESENTATIONS[r].families}
        made += c.add_primitives([f for f in FAMILIES if f in families])
        made += [c.add_features(r) for r in kept]
    return made


def computed(name: str, options: Mapping[str, Any]) -> list[str]:
    """The representations that an entry of `loras` computes. Raises ConfigError for an unknown one."""
    chosen = options["representations"]
    if chosen is None:
        return [r.name for r in REPRESENTATIONS.values() if r.default]
    for r in chosen:
        if r not in REPRESENTATIONS:
            where = f"loras.{name}.representations"
            raise ConfigError(f"{where}: unknown {r!r}; {nearest(r, REPRESENTATIONS)}")
    return list(chosen)
