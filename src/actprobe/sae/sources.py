"""Where an SAE comes from and what identifies it: a local folder or file, or the hub.

Planning reads configs, headers and digests, never weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe import hub, keys
from actprobe.errors import BadInput, ConfigError, Unreachable
from actprobe.keys import DigestMemo
from actprobe.sae.formats import FORMATS, Sae, describe, detect
from actprobe.sae.tensors import sliceable, tensors


@dataclass(frozen=True)
class Source:
    """A located SAE.

    identity: enters the spec; place: how a job finds it (`open_place`); sae: None when its config
    cannot be read before it is fetched; convert: its file cannot be read in place.
    """

    identity: Mapping[str, Any]
    place: Mapping[str, str]
    sae: Sae | None
    convert: bool


def locate(name: str, settings: Mapping[str, Any], memo: DigestMemo) -> Source:
    """Find the SAE of one config entry. Raises ConfigError naming the entry and what is wrong."""
    where, source, fmt = f"saes.{name}.source", settings["source"], settings["format"]
    if source.startswith("hub:"):
        return _on_hub(source.removeprefix("hub:"), fmt, settings["revision"], f"saes.{name}")
    path = Path(source).absolute()
    try:
        fmt = detect(path) if fmt == "auto" else fmt
        sae = describe(path, fmt)
        convert = _must_convert(sae)
    except BadInput as e:
        raise ConfigError(f"{where}: {e}") from None
    if settings["identity"] == "revision":
        if not settings["revision"]:
            raise ConfigError(f"{where}: identity: revision needs a revision")
        identity: dict[str, Any] = {"revision": settings["revision"]}
    else:
        folder = FORMATS[fmt].at(path)
        assert folder is not None
        identity = {
            "files": keys.spec_key({f: memo.sha256(folder / f) for f in FORMATS[fmt].files})
        }
    if fmt.startswith("gemma_scope"):  # what the names of the folders alone say
        said = {"input_scale": sae.input_scale, "transcoder": sae.transcoder}
        identity |= {k: v for k, v in said.items() if v != getattr(Sae, k)}
    return Source({**identity, "format": fmt}, {"path": str(path), "format": fmt}, sae, convert)


def require_unchanged(name: str, config: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
    """Raise ActprobeError when the files of a local SAE are not those of the plan any more.

    planned: its identity in the spec. Digests are remembered, so that this costs a look at sizes
    and times.
    """
    if "files" not in planned:
        return
    settings = config["saes"][name]
    found = locate(name, settings, DigestMemo(config["cache_dir"])).identity
    keys.require_unchanged(found, planned, f"saes.{name}: {settings['source']}")


def _must_convert(sae: Sae) -> bool:
    return sae.weights.endswith(".pt") or not sliceable(tensors(sae.weights))


def _on_hub(source: str, fmt: str, revision: str | None, where: str) -> Source:
    """A hub SAE: ORG/REPO or ORG/REPO/FOLDER at a commit.

    Its config is asked for only when the format is not given: planning many SAEs must not wait for
    a network.
    """
    repo, folder = "/".join(source.split("/")[:2]), "/".join(source.split("/")[2:])
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ConfigError(f"{where}.revision: pin hub:{repo} to its full 40-digit commit hash")
    assert revision is not None
    try:
        path = fetch(repo, folder, revision, ["*.json"], local=fmt != "auto")
    except Unreachable:
        path = None
    sae, convert = None, fmt == "dictionary_learning"
    if path is not None:
        try:
            fmt = detect(path) if fmt == "auto" else fmt
            sae = describe(path, fmt)
            convert = _must_convert(sae)
        except BadInput:
            sae = None  # the weights are not here yet; checked again in the job
    if fmt == "auto":
        raise ConfigError(
            f"{where}.format: cannot be seen before hub:{source} is fetched; give one of "
            f"{', '.join(FORMATS)}"
        )
    identity = {"hub": repo, "folder": folder, "revision": revision, "format": fmt}
    return Source(identity, identity, sae, convert)


def fetch(repo: str, folder: str, revision: str, files: Sequence[str], local: bool = False) -> Path:
    """A hub SAE's folder in the local hub cache; files are fetched as needed, unless `local`.

    files: names or patterns below the folder, which may hold much else, such as checkpoints.
    Raises Unreachable when they cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"{folder}/{f}" if folder else f for f in files]
        root = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=patterns,
            etag_timeout=20,
            local_files_only=local,
        )
    except hub.errors() as e:
        raise Unreachable(
            f"hub:{repo} at {revision[:8]} is not in the local hub cache and cannot be fetched "
            f"({type(e).__name__})"
        ) from None
    return Path(root) / folder


def open_place(place: Mapping[str, str]) -> Sae:
    """The SAE at a place, fetched when it is on the hub. Raises BadInput, Unreachable."""
    if "artefact" in place:
        from actprobe.sae.artefact import read_sae

        return read_sae(place["artefact"])
    if "hub" in place:
        files = FORMATS[place["format"]].files
        path = fetch(place["hub"], place["folder"], place["revision"], files)
        return describe(path, place["format"])
    return describe(place["path"], place["format"])
