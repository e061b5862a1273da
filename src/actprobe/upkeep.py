"""Looking after a cache: verify every byte, find what no config wants."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actprobe import experiment, keys, store, wandb
from actprobe.errors import Damaged
from actprobe.keys import DigestMemo

_KEYED = re.compile(rf"^(.*\.[0-9a-f]{{{keys.SHORT}}})(?=[./]|$)")


@dataclass
class Report:
    """What `verify` found: files and bytes read, damaged path -> reason."""

    checked: int = 0
    bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def artefacts(roots: Iterable[Path]) -> Iterable[Path]:
    """Finished artefacts and raw files under the given files and folders, sorted."""
    for root in roots:
        if root.is_file():
            yield root
            continue
        for folder, subfolders, names in os.walk(root):
            # An unpacked wheel belongs to its wheel file, which is checked itself.
            subfolders[:] = sorted(s for s in subfolders if not _KEYED.match(s))
            yield from (Path(folder, n) for n in sorted(names) if store.file_key(n))


def verify(roots: Iterable[Path], set_aside: bool = False) -> Report:
    """Read artefacts whole and compare with their seals; raw files with the digest in the name."""
    report = Report()
    for path in artefacts(roots):
        report.checked += 1
        report.bytes += path.stat().st_size
        try:
            if path.suffix == ".whl":
                _verify_wheel(path)
            elif wandb.is_raw(path):
                wandb.verify_file(path)
            else:
                store.verify(path)
        except Damaged as e:
            report.damaged[str(path)] = str(e).removeprefix(f"{path}: ")
            if set_aside:
                store.set_aside(path, str(e))
    return report


def _verify_wheel(path: Path) -> None:
    found = keys.short(keys.file_sha256(path))
    if found != store.file_key(path):
        raise Damaged(f"{path}: SHA-256 begins {found}, the name says {store.file_key(path)}")


def unwanted(configs: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Files (path -> bytes) in the configs' caches that none of the configs wants.

    Parts of wanted artefacts are kept unless these are there; files set aside as .bad are listed,
    and files whose name carries no key (the digest memo, other people's notes) are left alone.
    """
    keep: set[str] = set()
    roots: set[str] = set()
    for config in configs:
        roots.add(str(config["cache_dir"]))
        known = experiment.stages(dict(config), DigestMemo(config["cache_dir"]))
        for t in (t for ts in known.values() for t in ts):
            keep.add(_owner(t.path) or t.path)
    found: dict[str, int] = {}
    for root in sorted(roots):
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                path = os.path.join(folder, name)
                owner = _owner(path)
                if owner and (owner not in keep or name.endswith(".bad") or _left(path, owner)):
                    with contextlib.suppress(OSError):
                        found[path] = os.path.getsize(path)
    return found


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
