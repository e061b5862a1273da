"""Asking Weights & Biases, through its own client, what there is and where the bytes are.

The client is used for login, names, manifests and signed URLs, and moves no data. It takes the API
key from the environment or netrc; the key is never read here.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.config import Config, nearest
from actprobe.dumps import lockfile
from actprobe.dumps.asking import TIMEOUT, asking, patiently
from actprobe.dumps.connection import new_session, read_whole
from actprobe.dumps.lockfile import Lock, LockedFile
from actprobe.dumps.secrets import keep_out_of_logs
from actprobe.files import check_name

log = logging.getLogger(__name__)

T = TypeVar("T")
_PAGE = 1000  # files
_QUESTIONS = 16  # at once
_MANIFEST = 1 << 29  # bytes of a manifest: some million files
_CHUNK = re.compile(r"chunk (\d{1,9}) ?(?:/|of) ?(\d{1,9})(?!\d)", re.IGNORECASE)


class Service:
    """The service as a dump needs it; connects at the first question, and asks several at once."""

    def __init__(self) -> None:
        self._connecting = threading.Lock()

    @cached_property
    def _client(self) -> Any:
        import wandb

        keep_out_of_logs()
        with asking("login"):
            return wandb.Api(timeout=int(TIMEOUT))

    @property
    def _api(self) -> Any:
        with self._connecting:  # once, whichever thread comes first
            return self._client

    def resolve(self, source: Mapping[str, Any]) -> Lock:
        """What `source` (see `lockfile.config_source`) stands for right now.

        Raises ActprobeError when something is missing, incomplete, a reference to other storage,
        or has a dangerous name.
        """
        patterns = source["files"]
        artifacts: dict[str, str] = {}
        files: list[LockedFile] = []
        if "run" in source and "type" not in source:
            files = self._run_files(source["run"], patterns)
        else:
            found = self._logged(source) if "run" in source else self._named(source["artifacts"])
            named = {f"{a.entity}/{a.project}/{a.name.rpartition(':')[0]}:{a.version}": a
                     for a in found}  # fmt: skip  # two aliases of one version are one
            artifacts = {name: a.digest for name, a in named.items()}
            contents = _in_parallel(lambda item: self._manifest(*item), named.items())
            for name, content in zip(named, contents, strict=True):
                files += _manifest_files(name, content, patterns)
        if not files:
            raise ActprobeError(f"no file of {source} matches {patterns}")
        return Lock(dict(source), artifacts, tuple(files))

    def _named(self, names: Sequence[str]) -> list[Any]:
        def one(name: str) -> Any:
            with asking(name):
                return self._api.artifact(name)

        return _in_parallel(one, names)

    def _logged(self, source: Mapping[str, Any]) -> list[Any]:
        """The newest version of each artifact of this type that a run logged, all chunks there."""
        run, kind = source["run"], source["type"]
        newest: dict[str, Any] = {}
        with asking(run):
            for a in self._api.run(run).logged_artifacts():
                name = a.name.rpartition(":")[0]
                if a.type == kind and (name not in newest or _version(newest[name]) < _version(a)):
                    newest[name] = a
        if not newest:
            raise ActprobeError(f"run {run} logged no artifact of type {kind!r}")
        _check_complete(run, [a.description or "" for a in newest.values()])
        return list(newest.values())

    def _manifest(self, name: str, artifact: Any) -> Mapping[str, Any]:
        """The entries of an artifact's manifest by path.

        The client would fetch it without a timeout, and with what netrc has for the storage host.
        """
        from wandb.sdk.artifacts._generated import FETCH_ARTIFACT_MANIFEST_GQL

        def ask() -> bytes:
            with asking(name):
                said = self._api._service_api.execute_graphql(
                    FETCH_ARTIFACT_MANIFEST_GQL, {"id": artifact.id}
                )
                url = said["artifact"]["currentManifest"]["file"]["directUrl"]
            with new_session() as session:
                return read_whole(session, url, _MANIFEST)

        content = patiently(f"manifest of {name}", ask)
        try:
            return dict(json.loads(content)["contents"])
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ActprobeError(f"{name}: its manifest is not readable ({e})") from None

    def _run_files(self, run: str, patterns: Sequence[str]) -> list[LockedFile]:
        with asking(run):
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
        with asking(source):
            return {
                f.name: f.direct_url
                for f in self._nodes(source, list(paths))
                if f.direct_url and locked.get((source, f.name)) in (None, _upload(source, f))
            }

    def _nodes(self, source: str, paths: list[str]) -> Any:
        """The files of an artifact version or a run. What an artifact's question needs to know
        stands in the lock: the artifact itself is not asked for."""
        size = min(len(paths), _PAGE)
        if ":" not in source:
            return self._api.run(source).files(names=paths, per_page=size)
        from wandb.apis.public import ArtifactFiles

        entity, project, name = source.split("/")
        version = name.rpartition(":")[2]
        place: Any = SimpleNamespace(entity=entity, project=project, name=name, version=version)
        return ArtifactFiles(self._api._service_api, place, paths, size)


def _in_parallel(ask: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """The answers to many questions, in order. The first error ends it."""
    with ThreadPoolExecutor(_QUESTIONS) as pool:
        futures = [pool.submit(ask, item) for item in items]
        try:
            return [f.result() for f in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _version(artifact: Any) -> int:
    return int(artifact.version.removeprefix("v"))


def _check_complete(run: str, descriptions: Sequence[str]) -> None:
    """Artifacts that say "chunk i/n" or "chunk i of n" must be all of 1..n, and each said once."""
    numbers = [_CHUNK.search(d) for d in descriptions]
    said = Counter(d for d, m in zip(descriptions, numbers, strict=True) if m)
    if twice := sorted(d for d, n in said.items() if n > 1):
        raise ActprobeError(f"run {run}: several artifacts are called {twice[0]!r}")
    there = {int(m[1]) for m in numbers if m}
    totals = {int(m[2]) for m in numbers if m}
    total = max(totals, default=0)
    missing = list(islice((i for i in range(1, total + 1) if i not in there), 10))
    if len(totals) > 1 or missing:
        more = total - len(there) > len(missing)
        raise ActprobeError(
            f"run {run}: the dump is incomplete: of {total} chunks "
            f"{', '.join(map(str, missing)) or 'some'}{' …' if more and missing else ''} are missing"
        )


def _wanted(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, p) for p in patterns) and bool(check_name(path))


def _manifest_files(
    name: str, content: Mapping[str, Any], patterns: Sequence[str]
) -> Iterator[LockedFile]:
    for path, entry in sorted(content.items()):
        if not _wanted(path, patterns):
            continue
        try:
            if entry.get("ref") is not None:
                raise ActprobeError(
                    f"{name}: {path} is a reference to other storage, which has no digest to check"
                )
            alg = str((entry.get("extra") or {}).get("alg") or "md5").lower()
            yield lockfile.checked(
                LockedFile(path, int(entry["size"]), alg, _hex(entry["digest"]), name)
            )
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ActprobeError(
                f"{name}: the manifest's entry {path!r} is not readable ({e})"
            ) from None


def _hex(digest: str) -> str:
    """128-bit digests are written in base64 in manifests, in either form in file lists."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", digest):
        return digest.lower()
    return base64.b64decode(digest + "==").hex()


def _upload(run: str, file: Any) -> str:
    """What stands for the digest of a run file that is listed without one."""
    said = f"{run}\n{file.name}\n{file.size}\n{file.updated_at}"
    return hashlib.sha256(said.encode()).hexdigest()


def lock(config: Config, name: str) -> Path:
    """Ask the service what the dump `name` of the config is now, and write its lock file.

    The file is left alone when nothing changed. Returns its path.
    """
    if name not in config.dumps:
        raise ConfigError(f"dumps: unknown dump {name!r}; {nearest(name, config.dumps)}")
    path = Path(config.dumps[name].lock)
    found = Service().resolve(lockfile.config_source(config, name))
    for f in found.files:
        if f.alg == "size":
            log.warning("%s: the service keeps no digest of it, its content is not checked", f.path)
    lockfile.write(found, path)
    return path


def outdated(config: Config, name: str) -> list[str]:
    """In words, what the service has that the lock file of a dump has not; empty when current."""
    old = lockfile.read(config, name)
    return lockfile.differences(old, Service().resolve(old.source))
