"""What decides the artefacts of the LoRA room, and what its jobs need besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actprobe.cache.plan import Record, Target


@dataclass(frozen=True, kw_only=True)
class Rules(Record):
    """How the files of a collection are read: options of `loras.{name}` of the same names.

    alpha: "stored" takes scales from the file by the rules of its dialect, "one" takes 1
    everywhere. extra_tensors: "ignore" or "refuse" files with tensors beside the LoRA.
    ignore_settings: fields of PEFT's LoraConfig that are taken to leave W alone.
    """

    alpha: str = "stored"
    extra_tensors: str = "ignore"
    ignore_settings: tuple[str, ...] = ()

    @staticmethod
    def of(options: Mapping[str, Any]) -> Rules:
        """The rules of a collection."""
        return Rules(
            alpha=options["alpha"],
            extra_tensors=options["extra_tensors"],
            ignore_settings=tuple(sorted(options["ignore_settings"])),
        )


@dataclass(frozen=True, kw_only=True)
class Sketch(Record):
    """Sizes of the sketch family: rows and columns of that of W, dimensions of its spaces."""

    product: int
    projector: int

    @staticmethod
    def of(options: Mapping[str, Any]) -> Sketch:
        """The sizes of a collection."""
        return Sketch(**options["sketch"])


@dataclass(frozen=True, kw_only=True)
class IndexSpec(Record):
    """The n files of a collection (digest of their ids and contents), and how they are read.

    index: version of the reading of names and scales; id: column of the ids in tables of LoRAs.
    """

    files: str
    n: int
    rules: Rules
    index: int
    on_bad_file: str
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Told(Record):
    """Who reads the labels of a collection: an entry of `probes`.

    where: its place in the config; columns: by kind; least: LoRAs of a class; rule: `split` of the
    protocol.
    """

    where: str
    columns: Mapping[str, str | None]
    least: int | None
    rule: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class IndexArgs(Record):
    """Who is told that classes turn out too small; see `index.run`."""

    told: tuple[Told, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FamilySpec(Record):
    """What the numbers of a family depend on; alpha where they are scaled."""

    version: int
    alpha: str | None = None
    sketch: Sketch | None = None


@dataclass(frozen=True, kw_only=True)
class PrimitivesSpec(FamilySpec):
    """A family of the n files of a shard, and which of them are refused; fields as of `Rules`."""

    family: str
    files: str
    n: int
    index: int
    extra_tensors: str
    ignore_settings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PrimitivesArgs(Record):
    """Names of the collection and of the shard."""

    collection: str
    shard: str


@dataclass(frozen=True, kw_only=True)
class FeaturesSpec(IndexSpec):
    """A representation of a collection, and the families that it is made of."""

    representation: str
    families: Mapping[str, FamilySpec]


@dataclass(frozen=True, kw_only=True)
class Shard(Record):
    """A shard by its name, and its primitives: a path for each family of the representation."""

    name: str
    primitives: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FeaturesArgs(Record):
    """Name of the collection, path of its index, and its shards; none for what is no view."""

    collection: str
    index: str
    shards: tuple[Shard, ...]


IndexTarget = Target[IndexSpec, IndexArgs]
PrimitivesTarget = Target[PrimitivesSpec, PrimitivesArgs]
FeaturesTarget = Target[FeaturesSpec, FeaturesArgs]
