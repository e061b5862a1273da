"""One artefact that a config asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache.plan.records import Nothing, plain

S = TypeVar("S")
A = TypeVar("A")
T = TypeVar("T", bound="Target[Any, SourceArgs]")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as Defaulted

    # `Target` alone is a target of any stage.
    SpecT = Defaulted("SpecT", covariant=True, default=Any)
    ArgsT = Defaulted("ArgsT", covariant=True, default=Any)
else:
    SpecT = TypeVar("SpecT", covariant=True)
    ArgsT = TypeVar("ArgsT", covariant=True)
_NOTHING = Nothing()


class _Loose(dict[str, Any]):
    """A mapping that answers like a record, until every stage has its types."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class SourceArgs(Protocol):
    """What the args of every source of rows say: activations, latents, features from files.

    source: its name in results; model, site and position: as in the config, empty where it has none.
    """

    @property
    def source(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def position(self) -> str: ...


@dataclass(frozen=True)
class Target(Generic[SpecT, ArgsT]):
    """One artefact that a config asks for.

    stage: the room that makes it ("activations"); loader: what one job loads once for all its
    targets (a model, an SAE); item: what that is applied to (a dataset): targets of one item stay
    in one shard. name: readable path below the stage's folder, without key and extension.
    spec: everything that determines the content; args: how to make it where that does not change the
    content (paths, devices). inputs: paths of upstream artefacts. version: of the stage.
    cost: expected work in the stage's own unit, to balance shards. raw: an outside file kept as it
    is; its key is the SHA-256 of its bytes, and it has no header. content: digest of what is in it,
    where that is known while planning. movable: no name of the config is in it, so a file of the same
    key under another name will do.
    """

    stage: str
    loader: str
    item: str
    name: str
    path: str
    key: str
    spec: SpecT
    inputs: tuple[str, ...] = ()
    args: ArgsT = _NOTHING  # type: ignore[assignment]
    cost: float = 1.0
    raw: bool = False
    content: str = ""
    movable: bool = False
    version: int = 0

    def __post_init__(self) -> None:
        for name in ("spec", "args"):
            if type(value := getattr(self, name)) is dict:
                object.__setattr__(self, name, _Loose(value))

    @property
    def identity(self) -> str:
        """What stands for this artefact in the specs of those that read it."""
        return self.content or self.key

    @cached_property
    def record(self) -> dict[str, Any]:
        """The spec as it stands in the artefact's header: JSON whose hash is the key."""
        if isinstance(self.spec, Mapping):  # until every stage has its types
            return dict(self.spec)
        return _record(self.stage, self.version, self.spec)


def _record(stage: str, version: int, spec: Any) -> dict[str, Any]:
    return {"stage": stage, "version": version, **plain(spec)}


def target(
    cache_dir: str | Path,
    stage: str,
    version: int,
    name: str,
    spec: S,
    *,
    loader: str,
    item: str,
    inputs: Iterable[Target[Any, Any]] = (),
    args: A = _NOTHING,  # type: ignore[assignment]
    ext: str = "h5",
    cost: float = 1.0,
    movable: bool = False,
) -> Target[S, A]:
    """A target whose key is the hash of stage, version and spec.

    `spec` must hold the keys of the upstream artefacts it depends on; `inputs` only says which
    files must be there.
    """
    if isinstance(spec, Mapping):  # until every stage has its types
        spec = {"stage": stage, "version": version, **spec}  # type: ignore[assignment]
        key = keys.spec_key(spec)
    else:
        key = keys.spec_key(_record(stage, version, spec))
    path = f"{cache_dir}/{stage}/{name}.{keys.short(key)}.{ext}"
    paths = tuple(dict.fromkeys(t.path for t in inputs))
    return Target(
        stage, loader, item, name, path, key, spec, paths, args, cost,
        movable=movable, version=version,
    )  # fmt: skip


def only(found: Sequence[T], where: str) -> T:
    """The one target of a source and dataset. Raises ConfigError when entries of the config call
    two things by this name."""
    if len({t.path for t in found}) > 1:
        t = found[0]
        raise ConfigError(
            f"{where}: {t.args.source} of {t.item} means different spans in different entries of "
            "`activations`; call them differently"
        )
    return found[0]
