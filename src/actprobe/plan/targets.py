"""One artefact that a config asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actprobe import keys
from actprobe.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """One artefact that a config asks for.

    stage: the room that makes it ("activations"); loader: what one job loads once for all its
    targets (a model, an SAE); item: what that is applied to (a dataset): targets of one item stay
    in one shard. name: readable path below the stage's folder, without key and extension.
    spec: everything that determines the content (its hash is the key); args: how to make it where
    that does not change the content (paths, devices). inputs: paths of upstream artefacts.
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
    spec: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    raw: bool = False
    content: str = ""
    movable: bool = False

    @property
    def identity(self) -> str:
        """What stands for this artefact in the specs of those that read it."""
        return self.content or self.key


def target(
    cache_dir: str | Path,
    stage: str,
    version: int,
    name: str,
    params: Mapping[str, Any],
    *,
    loader: str,
    item: str,
    inputs: Iterable[Target] = (),
    args: Mapping[str, Any] | None = None,
    ext: str = "h5",
    cost: float = 1.0,
    movable: bool = False,
) -> Target:
    """A target whose key is the hash of stage, version and params.

    `params` must hold the keys of the upstream artefacts it depends on; `inputs` only says which
    files must be there.
    """
    spec = {"stage": stage, "version": version, **params}
    key = keys.spec_key(spec)
    path = f"{cache_dir}/{stage}/{name}.{keys.short(key)}.{ext}"
    paths = tuple(dict.fromkeys(t.path for t in inputs))
    return Target(
        stage, loader, item, name, path, key, spec, paths, dict(args or {}), cost, movable=movable
    )


def only(found: Sequence[Target], where: str) -> Target:
    """The one target of a source and dataset. Raises ConfigError when entries of the config call
    two things by this name."""
    if len({t.path for t in found}) > 1:
        t = found[0]
        raise ConfigError(
            f"{where}: {t.args['source']} of {t.item} means different spans in different entries of "
            "`activations`; call them differently"
        )
    return found[0]
