"""From the config to the targets of the LoRA room: index, primitives, representations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actprobe.config import nearest
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.lora import collection
from actprobe.lora.catalog import FAMILIES, REPRESENTATIONS, stored
from actprobe.plan import Target, target

INDEX_VERSION = 4  # how names and scales are read; all that is computed from weights depends on it


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
        self.index: Target = target(
            config["cache_dir"], "lora_index", INDEX_VERSION, name, params, loader=name, item=name,
            args={"told": []}, cost=len(self.members), ext="parquet",
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

    def parts(self, representation: str) -> dict[str, Target]:
        """The stored representations that one is made of, by name."""
        names = REPRESENTATIONS[representation].parts or (representation,)
        return {p: self.add_features(p) for p in names}

    def tell(self, told: Sequence[Any]) -> None:
        """Let the job of the index warn of classes that are too small; see `index.run`."""
        self.index.args["told"].append(list(told))

    def _rules(self, family: str) -> dict[str, Any]:
        """Options that a family's numbers depend on."""
        rules: dict[str, Any] = {}
        if FAMILIES[family].scaled:
            rules["alpha"] = self.options["alpha"]
        if family == "sketch":
            rules["sketch"] = self.options["sketch"]
        return rules


def collections(config: Mapping[str, Any], memo: DigestMemo) -> dict[str, Collection]:
    """The collections of a config. Raises ConfigError naming one that cannot be found."""
    return {name: Collection(config, name, memo) for name in config.get("loras") or {}}


def targets(
    found: Mapping[str, Collection], asked: Mapping[str, Iterable[str]] | None = None
) -> list[Target]:
    """Targets of the stages lora_index, lora_primitives and features.

    asked: representations that probes read of a collection besides those that its entry computes. No
    weights are read.
    """
    made: list[Target] = []
    for name, c in found.items():
        wanted = [*computed(name, c.options), *((asked or {}).get(name) or ())]
        kept = stored(list(dict.fromkeys(wanted)))
        families = {f for r in kept for f in REPRESENTATIONS[r].families}
        made.append(c.index)
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
