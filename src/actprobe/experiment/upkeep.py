"""Looking after a cache: verify every byte, find what no config wants."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actprobe import dumps, texts
from actprobe.base import keys
from actprobe.base.errors import Damaged
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.config import Config
from actprobe.experiment import targets as experiment

_KEYED = re.compile(rf"^(.*\.[0-9a-f]{{{keys.SHORT}}})(?=[./]|$)")


@dataclass
class Report:
    """What `verify` found: files and bytes read, and path -> reason of what cannot be trusted.

    damaged: bytes that are not those that were sealed. children: made from a file that is damaged,
    or that was replaced by another of the same key since.
    """

    checked: int = 0
    bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)


def artefacts(roots: Iterable[Path]) -> Iterable[Path]:
    """Finished artefacts and raw files under the given files and folders, sorted."""
    for root in roots:
        if root.is_file():
            yield root
            continue
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            found = [n for n in (*names, *subfolders) if store.file_key(n)]
            yield from (Path(folder, n) for n in sorted(found))


def verify(roots: Iterable[Path], set_aside: bool = False) -> Report:
    """Read artefacts whole and compare with their seals; raw files with the digest in the name.

    A file that vanishes meanwhile is passed over; what cannot be read counts as damaged.
    """
    report = Report()
    headers: dict[str, dict[str, Any]] = {}
    for path in artefacts(roots):
        try:
            report.bytes += path.stat().st_size
            if path.suffix == ".whl":
                texts.verify_wheel(path)
            elif texts.is_fetched(path):
                texts.verify_fetched(path)
            elif dumps.is_raw(path):
                dumps.verify_file(path)
            else:
                headers[str(path)] = store.verify(path)
        except FileNotFoundError:
            if not path.is_symlink():
                continue
            report.damaged[str(path)] = f"a link to {os.readlink(path)}, which is not there"
        except IsADirectoryError:
            report.damaged[str(path)] = "a folder, expected a file"
        except (Damaged, OSError) as e:
            report.damaged[str(path)] = str(e).removeprefix(f"{path}: ")
        report.checked += 1
    report.children = _children(headers, report.damaged)
    if set_aside:
        for found, reason in (report.damaged | report.children).items():
            store.set_aside(found, reason)
    return report


def _children(
    headers: Mapping[str, Mapping[str, Any]], damaged: Mapping[str, str]
) -> dict[str, str]:
    """Files made from damaged ones, or from others than are there now under their key; theirs too.

    headers: of the files that are whole, by path.
    """
    seals: dict[str, set[str]] = defaultdict(set)
    for header in headers.values():
        seals[header["key"]].add(header["seal"]["sha256"])
    doubtful = {store.file_key(path): path for path in damaged}  # first digits of the key -> path
    found: dict[str, str] = {}
    while True:
        before = len(found)
        for path, header in headers.items():
            for key, seal in header["from"].items() if path not in found else ():
                parent = doubtful.get(keys.short(key))
                if parent is not None:
                    found[path] = f"made from {parent}"
                elif seals.get(key, {seal}) != {seal}:
                    found[path] = f"made from another file of key {keys.short(key)} than is there"
                else:
                    continue
                doubtful[keys.short(header["key"])] = path
                break
        if len(found) == before:
            return found


@dataclass(frozen=True)
class File:
    """A file of the cache: bytes, when it was written (seconds since 1970), and whose it is."""

    path: str
    size: int
    written: float
    owner: str

    @property
    def group(self) -> str:
        """What a reader knows it by: the folder, below the cache, of all artefacts of its kind."""
        return os.path.dirname(self.path)


def unwanted(configs: Iterable[Config]) -> list[File]:
    """Files in the configs' caches that none of the configs wants, folder by folder.

    Parts of wanted artefacts are kept unless these are there; files set aside as .bad are listed,
    and files whose name carries no key (the digest memo, other people's notes) are left alone.
    """
    keep: set[str] = set()
    roots: set[str] = set()
    for config in configs:
        roots.add(str(config.cache_dir))
        known = experiment.stages(config, DigestMemo(config.cache_dir))
        for t in (t for ts in known.values() for t in ts):
            keep.add(_owner(t.path) or t.path)
    found: list[File] = []
    for root in sorted(roots):
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                path = os.path.join(folder, name)
                owner = _owner(path)
                if owner and (owner not in keep or name.endswith(".bad") or _left(path, owner)):
                    with contextlib.suppress(OSError):
                        found.append(_file(path))
    return sorted(found, key=lambda f: f.path)


def _file(path: str) -> File:
    st = os.lstat(path)
    try:
        owner = pwd.getpwuid(st.st_uid).pw_name
    except KeyError:
        owner = str(st.st_uid)
    return File(path, st.st_size, st.st_mtime, owner)


def _left(path: str, owner: str) -> bool:
    """True for a part of an artefact that is there: what a killed process left beside it."""
    artefact = f"{owner}.{path[len(owner) + 1 :].partition('.')[0]}"
    return ".part" in path[len(artefact) :] and os.path.exists(artefact)


def _owner(path: str) -> str | None:
    """The artefact a file belongs to: its path up to and including the key."""
    m = _KEYED.match(path)
    return m[1] if m else None


def delete(paths: Iterable[str]) -> list[str]:
    """Delete the files and folders left empty; returns those kept because a process holds them."""
    kept = []
    for path in paths:
        if any(map(_held, _locks(path))):
            kept.append(path)
            continue
        Path(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            os.removedirs(os.path.dirname(path))
    return kept


def _locks(path: str) -> list[str]:
    """The lock of the part that a file belongs to, and that of all parts of a running fetch."""
    of_part = re.match(r"(.*\.part)(\.[^/]*)?$", path)
    return [f"{of_part[1] if of_part else path}.lock", f"{Path(path).parent.parent}/.lock"]


def _held(lock: str) -> bool:
    """True when a live process has the lock."""
    try:
        fd = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
