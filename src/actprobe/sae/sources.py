"""Where an SAE comes from and what identifies it: a local folder or file, or the hub.

Planning reads configs, headers and digests, never weights.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from actprobe.base import keys
from actprobe.base.errors import BadInput, ConfigError, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import plain
from actprobe.config import Config
from actprobe.config.saes import SAE
from actprobe.files import hub
from actprobe.sae.formats import FORMATS, Sae, describe, detect
from actprobe.sae.headers import require_tensors
from actprobe.sae.pickles import is_pickle
from actprobe.sae.records import (
    FilesIdentity,
    HubIdentity,
    HubPlace,
    Identity,
    LocalPlace,
    MadePlace,
    Place,
    Published,
)
from actprobe.sae.remote import Remote
from actprobe.sae.tensors import sliceable, tensors


@dataclass(frozen=True)
class Source:
    """A located SAE.

    identity: enters the spec; place: how a job finds it (`open_place`); sae: None when its config
    cannot be read before it is fetched; convert: its file cannot be read in place; bad: why it
    cannot be used.
    """

    identity: Published
    place: LocalPlace | HubPlace
    sae: Sae | None
    convert: bool
    bad: str | None = None


def locate(name: str, settings: SAE, memo: DigestMemo) -> Source:
    """Find the SAE of one config entry. Raises ConfigError naming the entry and what is wrong."""
    assert (
        settings.source is not None
    )  # an SAE that is trained here has none, and is not looked for
    where, source, fmt = f"saes.{name}.source", settings.source, str(settings.format)
    if source.startswith("hub:"):
        return _on_hub(source.removeprefix("hub:"), settings, f"saes.{name}", memo)
    path = (Path(source).expanduser() / (settings.subfolder or "")).absolute()
    if not path.exists() and (words := _words(source)):
        raise ConfigError(
            f"{where}: {path}: there is no such folder or file; for the hub write {words}"
        )
    try:
        fmt = detect(path) if fmt == "auto" else fmt
        files = FORMATS[fmt].members(path)
    except BadInput as e:  # it is not there
        raise ConfigError(f"{where}: {e}") from None
    sae, convert, bad = None, False, None
    try:
        sae = describe(path, fmt)
        convert = _must_convert(sae)
    except BadInput as e:
        _require_whole(files.values(), memo)
        bad = str(e)
    if settings.identity == "revision":
        if not settings.revision:
            raise ConfigError(f"{where}: identity: revision needs a revision")
        identity = FilesIdentity(format=fmt, revision=settings.revision)
    else:
        _require_whole(files.values(), memo)
        digests = {name: memo.sha256(f) for name, f in files.items()}
        identity = FilesIdentity(format=fmt, files=keys.spec_key(digests))
    said = {k: getattr(sae, k) for k in FORMATS[fmt].by_name} if sae else {}
    named = {k: v for k, v in said.items() if v != getattr(Sae, k)}
    place = LocalPlace(path=str(path), format=fmt)
    return Source(replace(identity, named=named or None), place, sae, convert, bad)


def _require_whole(files: Iterable[Path], memo: DigestMemo) -> None:
    """Raise Damaged where local files lie in the hub cache and are not what they were."""
    for file in files:
        hub.require_whole(file, memo)


def _words(source: str) -> str | None:
    """What to write for a source that names the hub without saying so."""
    return hub.hint(source) or (f"source: hub:{source}" if hub.looks_like_repo(source) else None)


def require_unchanged(name: str, config: Config, planned: Identity) -> None:
    """Raise ActprobeError when the files of a local SAE are not those of the plan any more.

    planned: its identity in the spec. Digests are remembered, so that this costs a look at sizes
    and times.
    """
    if not isinstance(planned, FilesIdentity) or planned.files is None:
        return
    settings = config.saes[name]
    found = locate(name, settings, DigestMemo(config.cache_dir)).identity
    keys.require_unchanged(plain(found), plain(planned), f"saes.{name}: {settings.source}")


def _must_convert(sae: Sae) -> bool:
    """Whether the weights cannot be read in place. Raises BadInput for headers that do not fit."""
    if is_pickle(sae.weights):
        return True
    found = tensors(sae.weights)
    require_tensors(sae, found)
    return not sliceable(found)


def _on_hub(source: str, settings: SAE, where: str, memo: DigestMemo) -> Source:
    """A hub SAE at a commit. Its format and what it is come from the list of files and from small
    ones, which are asked for only where they are not here."""
    repo, folder = hub.split(source, settings.subfolder, f"{where}.source")
    service, fmt = hub.of(memo), settings.format
    commit = service.commit(repo, settings.revision, where)
    remote = Remote(service, repo, commit.sha, folder)

    def placed(fmt: str, lacks: str | None = None) -> tuple[HubIdentity, HubPlace]:
        below, file = _named(fmt, folder)
        identity = HubIdentity(hub=repo, revision=commit.sha, format=fmt, folder=below, file=file)
        place = HubPlace(
            repo=repo, revision=commit.sha, asked=commit.asked, cache_dir=str(memo.file.parent),
            format=fmt, folder=below, file=file, lacks=lacks,
        )  # fmt: skip
        return identity, place

    try:
        found = remote.look(fmt, where)
    except (hub.Refused, Unreachable) as e:  # it may never be needed
        if fmt == "auto":
            raise type(e)(
                f"{where}.format: cannot be seen now, give one of {', '.join(FORMATS)}: {e}"
            ) from None
        identity, place = placed(fmt)
        return Source(identity, place.without(e), None, ".pt" in FORMATS[fmt].files[-1])
    convert, bad = ".pt" in Path(found.files[0]).name, found.bad  # a pickle
    try:
        if found.sae is not None and not found.lacks:
            convert = _must_convert(found.sae)
    except BadInput as e:
        remote.require_whole()
        bad = str(e)
    return Source(*placed(found.format, found.lacks), found.sae, convert and not bad, bad)


def _named(fmt: str, folder: str) -> tuple[str, str | None]:
    """What a source says of an SAE: its folder, and its weights file where a folder may hold several.

    The file may be named for other formats as well, and then says nothing more.
    """
    path = PurePosixPath(folder)
    weights = FORMATS[fmt].files[-1] if fmt in FORMATS else ""
    if weights and f"/{folder}".endswith(f"/{weights}"):
        folder = folder.removesuffix(weights).rstrip("/")
    elif "*" in weights and fnmatch.fnmatch(path.name, weights):
        parent = "" if str(path.parent) == "." else str(path.parent)
        return parent, path.name
    return folder, None


def open_place(place: Place) -> Sae:
    """The SAE at a place, fetched when it is on the hub. Raises BadInput, Unreachable, Damaged."""
    if isinstance(place, MadePlace):
        from actprobe.sae.artefact import read_sae

        return read_sae(place.artefact)
    if isinstance(place, HubPlace):
        service = hub.Hub(DigestMemo(place.cache_dir), patient=True)
        folder = "/".join(filter(None, [place.folder, place.file]))
        remote = Remote(service, place.repo, place.revision, folder)
        found = remote.look(place.format, "saes")
        at = replace(remote, folder=found.folder)
        at.fetch(found.files)
        return at.describe(found.files[0], found.format)
    return describe(place.path, place.format)
