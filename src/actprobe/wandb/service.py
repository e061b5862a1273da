"""Asking Weights & Biases, through its own client, what there is and where the bytes are.

The client is used for login, names, manifests and signed URLs, and moves no data. It takes the API
key from the environment or netrc; the key is never read here.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from actprobe.config import nearest
from actprobe.errors import ActprobeError, ConfigError
from actprobe.files import check_name
from actprobe.wandb import lockfile
from actprobe.wandb.lockfile import Lock, LockedFile
from actprobe.wandb.urls import keep_out_of_logs

log = logging.getLogger(__name__)

_PAGE = 1000
_TIMEOUT = 60  # seconds for one question


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn any error of the client into an ActprobeError without URLs, which may be signed."""
    try:
        yield
    except ActprobeError:
        raise
    except Exception as e:  # the client raises its own, requests' and pydantic's errors
        text = re.sub(r"\w+://\S+", "(URL)", " ".join(str(e).split()))[:300]
        raise ActprobeError(f"Weights & Biases, {what}: {type(e).__name__}: {text}") from None


class Service:
    """The service as a dump needs it; connects at the first question."""

    def __init__(self) -> None:
        self._artifacts: dict[str, Any] = {}

    @cached_property
    def _api(self) -> Any:
        import wandb

        keep_out_of_logs()
        return wandb.Api(timeout=_TIMEOUT)

    def _artifact(self, name: str) -> Any:
        if name not in self._artifacts:
            self._artifacts[name] = self._api.artifact(name)
        return self._artifacts[name]

    def resolve(self, source: Mapping[str, Any]) -> Lock:
        """What `source` (see `lockfile.config_source`) stands for right now.

        Raises ActprobeError when something is missing, incomplete, a reference to other storage,
        or has a dangerous name.
        """
        patterns = source["files"]
        artifacts: dict[str, str] = {}
        if "run" in source and "type" not in source:
            files = self._run_files(source["run"], patterns)
        else:
            files = []
            for a in self._logged(source) if "run" in source else self._named(source["artifacts"]):
                name = f"{a.entity}/{a.project}/{a.name.rpartition(':')[0]}:{a.version}"
                if name in artifacts:  # two aliases of one version
                    continue
                with _readable(name):
                    artifacts[name] = a.digest
                    files += _manifest_files(name, a.manifest, patterns)
        if not files:
            raise ActprobeError(f"no file of {source} matches {patterns}")
        return Lock(dict(source), artifacts, tuple(files))

    def _named(self, names: Iterable[str]) -> Iterator[Any]:
        for name in names:
            with _readable(name):
                yield self._artifact(name)

    def _logged(self, source: Mapping[str, Any]) -> list[Any]:
        """The newest version of each artifact of this type that a run logged, all chunks there."""
        run, kind = source["run"], source["type"]
        newest: dict[str, Any] = {}
        with _readable(run):
            for a in self._api.run(run).logged_artifacts():
                name = a.name.rpartition(":")[0]
                if a.type == kind and (name not in newest or _version(newest[name]) < _version(a)):
                    newest[name] = a
        if not newest:
            raise ActprobeError(f"run {run} logged no artifact of type {kind!r}")
        _check_complete(run, [a.description or "" for a in newest.values()])
        return list(newest.values())

    def _run_files(self, run: str, patterns: Sequence[str]) -> list[LockedFile]:
        with _readable(run):
            nodes = list(self._api.run(run).files(per_page=_PAGE))
        found = []
        for f in nodes:
            if _wanted(f.name, patterns):
                alg, digest = ("md5", _hex(f.md5)) if f.md5 else ("size", _upload(run, f))
                found.append(LockedFile(f.name, f.size, alg, digest, run))
        return found

    def urls(
        self,
        source: str,
        paths: Sequence[str],
        uploads: Mapping[tuple[str, str], str] | None = None,
    ) -> dict[str, str]:
        """Fresh signed URLs of files of an artifact version or run.

        uploads: (source, path) -> what stands for the digest of a run file without one; a file that
        was uploaded again since then is left out.
        """
        locked = uploads or {}
        with _readable(source):
            holder = self._artifact(source) if ":" in source else self._api.run(source)
            nodes = holder.files(names=list(paths), per_page=min(len(paths), _PAGE))
            return {
                f.name: f.direct_url
                for f in nodes
                if (source, f.name) not in locked or locked[source, f.name] == _upload(source, f)
            }


def _version(artifact: Any) -> int:
    return int(artifact.version.removeprefix("v"))


def _check_complete(run: str, descriptions: Sequence[str]) -> None:
    """Artifacts that say "chunk i/n" or "chunk i of n" must be all of 1..n, and each said once."""
    numbers = [re.search(r"chunk (\d+) ?(?:/|of) ?(\d+)", d, re.IGNORECASE) for d in descriptions]
    said = [d for d, m in zip(descriptions, numbers, strict=True) if m]
    if twice := sorted({d for d in said if said.count(d) > 1}):
        raise ActprobeError(f"run {run}: several artifacts are called {twice[0]!r}")
    chunks = [(int(m[1]), int(m[2])) for m in numbers if m]
    totals = {n for _, n in chunks}
    missing = set(range(1, max(totals, default=0) + 1)) - {i for i, _ in chunks}
    if len(totals) > 1 or missing:
        raise ActprobeError(
            f"run {run}: the dump is incomplete: of {max(totals)} chunks "
            f"{', '.join(map(str, sorted(missing))) or 'some'} are missing"
        )


def _wanted(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, p) for p in patterns) and bool(check_name(path))


def _manifest_files(name: str, manifest: Any, patterns: Sequence[str]) -> Iterator[LockedFile]:
    for path, entry in sorted(manifest.entries.items()):
        if not _wanted(path, patterns):
            continue
        if entry.ref is not None:
            raise ActprobeError(
                f"{name}: {path} is a reference to other storage, which has no digest to check"
            )
        alg = str(entry.extra.get("alg", "md5")).lower()
        yield LockedFile(path, entry.size, alg, _hex(entry.digest), name)


def _hex(digest: str) -> str:
    """128-bit digests are written in base64 in manifests, in either form in file lists."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", digest):
        return digest.lower()
    return base64.b64decode(digest + "==").hex()


def _upload(run: str, file: Any) -> str:
    """What stands for the digest of a run file that is listed without one."""
    said = f"{run}\n{file.name}\n{file.size}\n{file.updated_at}"
    return hashlib.sha256(said.encode()).hexdigest()


def lock(config: Mapping[str, Any], name: str) -> Path:
    """Ask the service what the dump `name` of the config is now, and write its lock file.

    The file is left alone when nothing changed. Returns its path.
    """
    if name not in config["dumps"]:
        raise ConfigError(f"dumps: unknown dump {name!r}; {nearest(name, config['dumps'])}")
    path = Path(config["dumps"][name]["lock"])
    found = Service().resolve(lockfile.config_source(config, name))
    for f in found.files:
        if f.alg == "size":
            log.warning("%s: the service keeps no digest of it, its content is not checked", f.path)
    lockfile.write(found, path)
    return path


def outdated(config: Mapping[str, Any], name: str) -> list[str]:
    """In words, what the service has that the lock file of a dump has not; empty when current."""
    old = lockfile.read(config, name)
    return lockfile.differences(old, Service().resolve(old.source))
