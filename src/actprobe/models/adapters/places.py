"""Where adapters come from and what identifies them: folders of this machine, of wheels, of the hub.

Runs while the plan is made: reads `adapter_config.json`, names and digests, never weights.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target
from actprobe.files import hub
from actprobe.texts import wheel_source

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Kinds that change modules of the model in place; what puts tokens in front of a text is none.
KINDS = ("LORA", "LOHA", "LOKR")


@dataclass(frozen=True)
class Adapter:
    """An adapter on this machine. folder: has its two files; called: what messages call it."""

    folder: Path
    called: str
    scale: float


@dataclass(frozen=True)
class Planned:
    """The adapters of a model: what they add to its identity and place, and what must be there first."""

    identity: Mapping[str, Any]
    place: Mapping[str, Any]
    inputs: tuple[Target, ...] = ()


def given(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The adapters that a model's entry of the config names."""
    found = model["adapter"]
    if isinstance(found, Mapping):
        return [found]
    return list(found) if isinstance(found, list) else []


def planned(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Planned:
    """The adapters of model `name`. Raises ConfigError saying what is wrong with one."""
    model, identities, places, inputs = config["models"][name], [], [], []
    kinds: dict[str, None] = {}
    for n, entry in enumerate(given(model)):
        where = f"models.{name}.adapter" + (f"[{n}]" if isinstance(model["adapter"], list) else "")
        source = entry["source"]
        if in_wheel := wheel_source(config, source, f"{where}.source"):
            t = wheels[in_wheel[0]]
            inputs.append(t)
            identity, place, said = _in_wheel(t, in_wheel[1], where)
        elif source.startswith("hub:"):
            identity, place, said = _on_hub(source.removeprefix("hub:"), entry, where, memo)
        else:
            identity, place, said = _in_folder(source, where, memo)
        if said is not None:
            _check(said, entry, model, where)
            kinds[said["peft_type"]] = None
        identities.append({**identity, "scale": float(entry["scale"])})
        places.append({**place, "called": f"{where}: {source}", "scale": float(entry["scale"])})
    if not identities:
        return Planned({}, {})
    if len(kinds) > 1 and not model["merge_adapters"]:
        raise ConfigError(
            f"models.{name}.adapter: adapters of several kinds ({', '.join(kinds)}) cannot be computed "
            "beside the weights at once; write merge_adapters: true"
        )
    added = {"adapters": identities, "merged": model["merge_adapters"]}
    return Planned(added, {"adapters": places}, tuple(inputs))


def _in_folder(source: str, where: str, memo: DigestMemo) -> tuple[Any, Any, Any]:
    folder = Path(source).expanduser().absolute()
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            hint = hub.hint(source) or (f"hub:{source}" if hub.looks_like_repo(source) else None)
            other = f"; for the hub write {hint}" if hint else ""
            raise ConfigError(f"{where}.source: {folder} has no {file}{other or _instead(folder)}")
    digests = {file: memo.sha256(folder / file) for file in (CONFIG, WEIGHTS)}
    text = (folder / CONFIG).read_bytes()
    return (
        digests,
        {"folder": str(folder), "digests": digests},
        _json(text, f"{where}.source: {folder}"),
    )


def _instead(folder: Path) -> str:
    if (folder / "adapter_model.bin").is_file():
        return (
            ", and adapter_model.bin could run code: load it with peft and save_pretrained it, which "
            f"writes {WEIGHTS}"
        )
    return ""


def _in_wheel(t: Target, folder: str, where: str) -> tuple[Any, Any, Any]:
    said = None
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(t.path) as z:
        for file in (CONFIG, WEIGHTS):
            if f"{folder}/{file}" not in z.namelist():
                raise ConfigError(f"{where}.source: {Path(t.path).name} has no {folder}/{file}")
        said = _json(z.read(f"{folder}/{CONFIG}"), f"{where}.source")
    return {"wheel": t.key, "folder": folder}, {"wheel": t.path, "folder": folder}, said


def _on_hub(
    source: str, entry: Mapping[str, Any], where: str, memo: DigestMemo
) -> tuple[Any, Any, Any]:
    repo, folder = hub.split(source, None, f"{where}.source")
    service = hub.of(memo)
    commit = service.commit(repo, entry["revision"], where)
    prefix = f"{folder}/" if folder else ""
    identity = {"hub": repo, "revision": commit.sha} | ({"folder": folder} if folder else {})
    place = {
        "repo": repo,
        "revision": commit.sha,
        "below": folder,
        "cache_dir": str(memo.file.parent),
    }
    if hub.lacking(repo, commit.sha, [prefix + CONFIG, prefix + WEIGHTS]):
        with contextlib.suppress(hub.Refused, Unreachable):  # said where it is needed
            listed = service.listing(repo, commit.sha)
            for file in (CONFIG, WEIGHTS):
                if prefix + file not in listed:
                    raise ConfigError(
                        f"{where}.source: hub:{repo} at {commit.sha[:8]} has no {prefix}{file}"
                    )
    try:
        text = service.small(repo, commit.sha, prefix + CONFIG).read_bytes()
    except (hub.Refused, Unreachable):
        return identity, place, None
    return identity, place, _json(text, f"{where}.source: hub:{repo}")


def _json(text: bytes, what: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{what}: {CONFIG} cannot be read as JSON: {e}") from None
    if not isinstance(found, Mapping):
        raise ConfigError(f"{what}: {CONFIG} holds no JSON object")
    return found


def _check(
    said: Mapping[str, Any], entry: Mapping[str, Any], model: Mapping[str, Any], where: str
) -> None:
    """Raise ConfigError for a kind that is not applied, and for an adapter of another base."""
    kind = str(said.get("peft_type"))
    if kind not in KINDS:
        raise ConfigError(
            f"{where}.source: an adapter of kind {kind[:40]}; expected one of {', '.join(KINDS)}"
        )
    for key in ("target_parameters", "trainable_token_indices", "layer_replication"):
        if said.get(key):
            raise ConfigError(f"{where}.source: {CONFIG} sets {key}, which is not read")
    if said.get("bias", "none") != "none":
        raise ConfigError(f"{where}.source: {CONFIG} sets bias: {said['bias']}, which is not read")
    base = str(said.get("base_model_name_or_path") or "")
    source = model["source"] if isinstance(model["source"], str) else ""
    own = "/".join(source.removeprefix("hub:").split("/")[:2])
    if (
        not source.startswith("hub:")
        or not hub.looks_like_repo(base)
        or base.lower() == own.lower()
    ):
        return
    if entry["base"] != base:
        raise ConfigError(
            f"{where}.source: trained on {base} (base_model_name_or_path), and the model is {own}: "
            f"another base. If both have the same weights, write {where}.base: {base}"
        )


def gathered(place: Mapping[str, Any], scratch: Path) -> list[Adapter]:
    """The adapters of a model in folders of this machine, fetched or unpacked where they are not.

    place: of the model; scratch: a folder for what is unpacked. Raises ActprobeError for one that is
    not the one of the plan any more.
    """
    found = []
    for n, one in enumerate(place.get("adapters", ())):
        if "repo" in one:
            service = hub.Hub(DigestMemo(one["cache_dir"]), patient=True)
            prefix = f"{one['below']}/" if one["below"] else ""
            files = [prefix + CONFIG, prefix + WEIGHTS]
            service.fetch(one["repo"], one["revision"], files, one["called"])
            folder = hub.snapshot(one["repo"], one["revision"]) / one["below"]
        elif "wheel" in one:
            from actprobe.texts import unpack

            folder = unpack(one["wheel"], one["folder"], scratch / f"adapter-{n}")
        else:
            folder = Path(one["folder"])
            for file, planned_ in one["digests"].items():
                if not (folder / file).is_file():
                    raise ActprobeError(f"{one['called']}: {folder / file} is not there any more")
                keys.require_unchanged(
                    keys.file_sha256(folder / file), planned_, f"{one['called']}/{file}"
                )
        found.append(Adapter(folder, one["called"], one["scale"]))
    return found
