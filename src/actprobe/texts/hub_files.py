"""Datasets on the hub: which files a path, a config and a split mean, and their targets.

    path: hub:ORG/NAME@COMMIT/data/train.parquet
    path: hub:ORG/NAME@COMMIT          with  hub: {config: default, split: train}

What a config and a split mean stands in the front matter of the repository's README (`configs`,
`data_files`); without it files are found by their names, as the hub itself finds them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Nothing, Target
from actprobe.config import nearest
from actprobe.files import hub
from actprobe.texts.records import HubArgs, HubSource, HubTarget
from actprobe.texts.values import listed

STAGE = "hub"
_README = "README.md"
_GLOB = re.compile(r"[*?\[]")
_SPLITS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test", "testing", "eval")}


@dataclass(frozen=True)
class Located:
    """Files of a dataset on the hub.

    source: of the spec; raws: their targets; place: where they are, with the reason why they cannot
    be looked at now where there is one.
    """

    source: HubSource
    raws: Sequence[HubTarget]
    place: Mapping[str, Any]


def locate(
    path: str,
    chosen: Mapping[str, Any] | None,
    formats: Iterable[str],
    name: str,
    config: Mapping[str, Any],
    memo: DigestMemo,
) -> Located:
    """The files that a dataset's path and its key `hub` mean.

    path: without its `hub:`; chosen: `config` and `split`, or None. Raises ConfigError for a path
    that names no commit, no file, or files that the commit does not have.
    """
    where = f"dataset {name}"
    repo, revision, file = hub.split_dataset(path, f"{where}: path")
    service = hub.of(memo)
    commit = _commit(service, repo, revision, path, where)
    place = {"repo": repo, "revision": commit, "below": "", "cache_dir": str(memo.file.parent)}
    files = _Files(service, repo, commit, where)

    def unknown(why: ActprobeError) -> Located:
        source = HubSource(hub=repo, commit=commit, files=(file,))
        return Located(source, [], hub.noted(place, why))

    try:
        names = files.meant(file, chosen, list(formats))
    except ConfigError as e:
        if not isinstance(e, hub.Refused):
            raise
        return unknown(e)
    except ActprobeError as e:
        return unknown(e)
    source = HubSource(hub=repo.removeprefix("datasets/"), commit=commit, files=tuple(names))
    try:
        listed_files = service.listing(repo, commit)
    except ActprobeError as e:
        return Located(source, [], hub.noted(place, e))
    if missing := [n for n in names if n not in listed_files]:
        hint = nearest(missing[0], listed_files)
        raise ConfigError(f"{where}: hub:{path}: the commit has no file {missing[0]}; {hint}")
    raws = [_raw(config["cache_dir"], repo, commit, n, listed_files[n]) for n in names]
    return Located(source, raws, place)


def _commit(service: hub.Hub, repo: str, revision: str | None, path: str, where: str) -> str:
    """The commit of a path's revision. Raises ConfigError for a path without one."""
    if revision is not None:
        return service.commit(repo, revision, f"{where}: path").sha
    shown, file = repo.removeprefix("datasets/"), path.split("/", 2)[2:]
    try:
        pin = service.commit(repo, None, f"{where}: path").sha
    except ActprobeError:
        pin = "COMMIT"
    words = "/".join([f"hub:{shown}@{pin}", *file])
    raise ConfigError(f"{where}: hub:{path} names no commit, and a branch moves; write {words}")


def _raw(cache_dir: str, repo: str, commit: str, name: str, entry: hub.Entry) -> HubTarget:
    folder = repo.removeprefix("datasets/").replace("/", "--")
    stem, dot, ext = name.replace("/", "--").rpartition(".")
    called = f"{folder}/{stem if dot else ext}"
    path = f"{cache_dir}/{STAGE}/{called}.{keys.short(entry.digest)}.{ext if dot else 'data'}"
    args = HubArgs(repo=repo, revision=commit, file=name, size=entry.size)
    return Target(
        STAGE, STAGE, folder, called, path, entry.digest, Nothing(), args=args, cost=entry.size,
        raw=True,
    )  # fmt: skip


@dataclass(frozen=True)
class _Files:
    """The files of a commit."""

    service: hub.Hub
    repo: str
    commit: str
    where: str

    def meant(
        self, file: str, chosen: Mapping[str, Any] | None, formats: Sequence[str]
    ) -> list[str]:
        """The names of the files that a file of the path, a pattern or a config and split mean."""
        if file and chosen is not None:
            raise ConfigError(
                f"{self.where}: `path` names a file and `hub` a split; give one of them"
            )
        if file and not _GLOB.search(file):
            return [file]
        names = [n for n in self.service.listing(self.repo, self.commit) if _is_data(n, formats)]
        if file:
            return self._some(_matching(names, file), f"no file matches {file!r}", names)
        if chosen is None:
            raise ConfigError(
                f"{self.where}: the path names no file; add one of {listed(sorted(names), 5)} to it, or "
                "write `hub: {split: train}`"
            )
        return self._of_split(names, chosen["config"], chosen["split"])

    def _some(self, found: list[str], problem: str, known: Iterable[str]) -> list[str]:
        if not found:
            raise ConfigError(f"{self.where}: {problem}; the commit has {listed(sorted(known), 8)}")
        kinds = {n.partition(".")[2].lower() for n in found}
        if len(kinds) > 1 and any(n.endswith(".parquet") for n in found):
            return [n for n in found if n.endswith(".parquet")]
        return found

    def _of_split(self, names: list[str], config: str | None, split: str) -> list[str]:
        described = self._configs()
        if not described:
            return self._by_name(names, config, split)
        if config is None and len(described) > 1 and "default" not in described:
            raise ConfigError(
                f"{self.where}: hub.config: the dataset has {len(described)} configs; write one of "
                f"{listed(sorted(described))}"
            )
        config = config or ("default" if "default" in described else next(iter(described)))
        if config not in described:
            raise ConfigError(f"{self.where}: hub.config: {nearest(config, described)}")
        splits = described[config]
        if split not in splits:
            raise ConfigError(
                f"{self.where}: hub.split: no split {split!r} in config {config!r}; "
                f"{nearest(split, splits)}"
            )
        found = [n for pattern in splits[split] for n in _matching(names, pattern)]
        problem = f"config {config!r}, split {split!r} means {listed(splits[split])}"
        return self._some(list(dict.fromkeys(found)), f"{problem}, and no file matches", names)

    def _configs(self) -> dict[str, dict[str, list[str]]]:
        """Config -> split -> patterns of files, as the README says; empty where it does not."""
        if _README not in self.service.listing(self.repo, self.commit):
            return {}
        path = self.service.small(self.repo, self.commit, _README)
        front = re.match(
            r"---\s*\n(.*?)\n---", path.read_text("utf-8", errors="replace"), re.DOTALL
        )
        try:
            content = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError:
            return {}
        entries = content.get("configs") if isinstance(content, dict) else None
        found = {}
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "data_files" in entry:
                folder = str(entry.get("data_dir") or "")
                patterns = _patterns(entry["data_files"], folder)
                found[str(entry.get("config_name", "default"))] = patterns
        return found

    def _by_name(self, names: list[str], config: str | None, split: str) -> list[str]:
        words = _SPLITS.get(split, (split,))
        below = [
            n for n in names if config in (None, "default") or config in PurePosixPath(n).parts
        ]
        bound = r"(?:^|[/._ -])(?:%s)(?:[/._ -]|$)" % "|".join(map(re.escape, words))  # noqa: UP031
        found = [n for n in below if re.search(bound, n, re.IGNORECASE)]
        if not found and split == "train" and not any(_has_split(n) for n in below):
            found = below
        if config is None and len({str(PurePosixPath(n).parent) for n in found}) > 1:
            folders = sorted({PurePosixPath(n).parts[0] for n in found})
            if len(folders) > 1:
                raise ConfigError(
                    f"{self.where}: hub.config: files of split {split!r} lie in several folders; write "
                    f"one of {listed(folders)}"
                )
        return self._some(sorted(found), f"hub.split: no file of split {split!r}", names)


def _has_split(name: str) -> bool:
    return bool(re.search(r"(?:^|[/._ -])(?:test|valid|validation|val|dev|eval)[/._ -]", name))


def _patterns(data_files: Any, folder: str) -> dict[str, list[str]]:
    """Split -> patterns of `data_files`: a pattern or list of them (train), or one for each split."""
    if isinstance(data_files, (str, dict)):
        data_files = [data_files]
    found: dict[str, list[str]] = {}
    for entry in data_files:
        split, paths = "train", entry
        if isinstance(entry, dict):
            split, paths = str(entry.get("split", "train")), entry.get("path", [])
        for path in [paths] if isinstance(paths, str) else paths:
            whole = str(PurePosixPath(folder, str(path)))
            found.setdefault(split, []).append(whole)
    return found


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern of the hub means: `**` crosses folders, a folder means its files."""
    if not _GLOB.search(pattern):
        exact = [n for n in names if n == pattern]
        return exact or sorted(n for n in names if n.startswith(f"{pattern.rstrip('/')}/"))
    translated = fnmatch.translate(pattern.replace("**/", "\0").replace("**", "\1"))
    expression = translated.replace(".*", "[^/]*").replace("\0", "(?:.*/)?").replace("\1", ".*")
    return sorted(n for n in names if re.fullmatch(expression, n))


def _is_data(name: str, formats: Iterable[str]) -> bool:
    return any(name.lower().endswith(f".{f}") for f in formats)
