"""The lock file of a dump: exactly which files, of which version, with which digests.

`actprobe lock DUMP` writes it, people review it, Git keeps it. With it everything is planned and
reused without the service. It is JSON:

    {"source": {...}, "artifacts": [{"name": "team/project/acts:v3", "digest": "<hex>"}],
     "files": [{"path", "size", "alg", "digest", "source"}]}

`source` repeats what the config asked for; a file's `source` is the artifact version
(`entity/project/name:v3`) or the run (`entity/project/run`) that holds it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.config import Config
from actprobe.files import check_name

_DIGITS = {"md5": 32, "xxh128": 32, "sha256": 64, "size": 64}  # of a digest in hex


@dataclass(frozen=True, order=True)
class LockedFile:
    """One file of a dump. `digest` is hex; with alg `size` a hash of what is listed."""

    path: str
    size: int
    alg: str
    digest: str
    source: str


@dataclass(frozen=True)
class Lock:
    """What a lock file holds; `artifacts` maps a resolved version to its digest."""

    source: dict[str, Any]
    artifacts: dict[str, str]
    files: tuple[LockedFile, ...]


def config_source(config: Config, dump: str) -> dict[str, Any]:
    """What the config asks the service for: `artifacts`, or `run` with `type`; and `files`."""
    entry = config.dumps[dump]
    return {**entry.source.model_dump(exclude_none=True), "files": entry.files}


def read(config: Config, dump: str) -> Lock:
    """The lock of a dump. Raises ConfigError when there is none, or not for what is asked for."""
    path = config.dumps[dump].lock
    hint = f"run `actprobe lock {dump}`"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        files = tuple(checked(LockedFile(**f)) for f in content["files"])
        artifacts = {a["name"]: a["digest"] for a in content["artifacts"]}
        source = content["source"]
    except FileNotFoundError:
        raise ConfigError(f"dumps.{dump}: there is no lock file {path}; {hint}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise ConfigError(f"dumps.{dump}: {path} is not a lock file ({e}); {hint}") from None
    if source != config_source(config, dump):
        raise ConfigError(
            f"dumps.{dump}: {path} was made for {source}, the config asks for "
            f"{config_source(config, dump)}; {hint}"
        )
    return Lock(source, artifacts, files)


def checked(f: LockedFile) -> LockedFile:
    """The file, if it can be one. Raises BadInput for its name, ValueError for anything else."""
    if not all(isinstance(v, str) for v in (f.path, f.alg, f.digest, f.source)):
        raise ValueError(f"{f.path!r}: path, alg, digest and source must be text")
    check_name(f.path)
    if isinstance(f.size, bool) or not isinstance(f.size, int) or f.size < 0:
        raise ValueError(f"{f.path}: {f.size!r} is not a size")
    digits = _DIGITS.get(f.alg)
    if digits is None or not re.fullmatch(f"[0-9a-f]{{{digits}}}", f.digest):
        raise ValueError(f"{f.path} has no usable digest ({f.alg[:20]} {f.digest[:80]})")
    if not re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+(:[^/:]+)?", f.source):
        raise ValueError(f"{f.path}: {f.source[:80]!r} is no artifact or run")
    return f


def write(lock: Lock, path: str | Path) -> bool:
    """Write a lock file, unless it would be the same; True when it was written."""
    content = {
        "source": lock.source,
        "artifacts": [{"name": n, "digest": d} for n, d in sorted(lock.artifacts.items())],
        "files": [asdict(f) for f in sorted(lock.files)],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path = Path(path)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return True


def differences(old: Lock, new: Lock) -> list[str]:
    """In words, what the service has that the lock has not."""
    found = [f"{n}: new" for n in sorted(new.artifacts.keys() - old.artifacts.keys())]
    found += [f"{n}: gone" for n in sorted(old.artifacts.keys() - new.artifacts.keys())]
    before, after = _by_place(old), _by_place(new)
    for place in sorted({*before, *after}):
        if before.get(place) != after.get(place):
            word = "gone" if place not in after else "changed" if place in before else "new"
            found.append(f"{place[0]}: {word}")
    return found


def _by_place(lock: Lock) -> dict[tuple[str, str], tuple[str, str]]:
    """(path, run or artifact without its version) -> what the file is."""
    return {(f.path, f.source.partition(":")[0]): (f.alg, f.digest) for f in lock.files}
