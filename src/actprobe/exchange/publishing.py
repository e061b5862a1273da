"""Probes and cached files to the Hugging Face hub and back, through its client.

A repository of probes holds their folders (one alone at the top); one of activations, latents or SAEs
holds the sealed files as they are, at their places below the cache, and `actprobe.json`, which names key
and SHA-256 of each. What is there already is not sent again, so a push that was killed goes on where it
stopped. Tokens are the client's business (HF_TOKEN, hf auth login): none is read or shown here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import actprobe
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError, Damaged, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.files import hub
from actprobe.files.hub import asking, layout
from actprobe.files.hub.names import DATASETS

log = logging.getLogger(__name__)

T = TypeVar("T")

PROBES = "probes"
KINDS = {PROBES: "model", "activations": "dataset", "latents": "dataset", "saes": "model"}
INDEX, README = "actprobe.json", "README.md"
FORMAT = 1
_BATCH, _FILES = 1 << 30, 50  # bytes and files of one commit
_REPO = re.compile(r"hub:([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([^@\s]+))?")


def split(source: str) -> tuple[str, str, str | None]:
    """Repository, folder ("" for the top) and revision of `hub:ORG/NAME/FOLDER@REVISION`."""
    found = _REPO.fullmatch(source)
    if found is None or ".." in PurePosixPath(found[2] or "").parts:
        raise ConfigError(f"{source}: no place on the hub; expected hub:ORG/NAME@COMMIT")
    return found[1], found[2].strip("/"), found[3]


def push(
    source: str,
    what: str,
    files: Mapping[str, Path],
    readme: str,
    public: bool = False,
) -> str:
    """Send files to a repository, which is made where there is none; returns `hub:ORG/NAME@COMMIT`.

    files: name in the repository -> file; readme: of the repository. Raises ActprobeError for a
    repository that is public where that was not asked for, Refused or Unreachable by cause.
    """
    repo, folder, revision = split(source)
    if folder or revision:
        raise ConfigError(f"{source}: a push goes to a whole repository; write hub:{repo}")
    kind = KINDS[what]
    for path in files.values():
        if what != PROBES:
            store.verify(path)
    from huggingface_hub import HfApi

    api = HfApi()
    _ask(repo, "make the repository", lambda: api.create_repo(
        repo, repo_type=kind, private=not public, exist_ok=True
    ))  # fmt: skip
    info: Any = _ask(
        repo, "look at it", lambda: api.repo_info(repo, repo_type=kind, files_metadata=True)
    )
    if not info.private and not public:
        raise ActprobeError(f"hub:{repo} is public; --public sends to it all the same")
    there = {s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) for s in info.siblings or ()}
    todo = {n: p for n, p in files.items() if there.get(n) not in _digests(p)}
    if kept := len(files) - len(todo):
        log.info("hub:%s: %d of %d files are there", repo, kept, len(files))
    commit = info.sha
    contents: list[tuple[str, Path | bytes]] = list(todo.items())
    for small, content in _described(what, files, readme).items():
        if there.get(small) != layout.git_id(content):
            contents.append((small, content))
    for batch in _batches(contents):
        commit = _commit(api, repo, kind, batch)
        log.info(
            "hub:%s: sent %s%s", repo, batch[0][0], f" and {len(batch) - 1} more" * bool(batch[1:])
        )
    return f"hub:{repo}@{commit}"


def _described(what: str, files: Mapping[str, Path], readme: str) -> dict[str, bytes]:
    """The small files that tell of the others; probes tell of themselves."""
    found = {} if README in files else {README: readme.encode()}
    if what == PROBES:
        return found
    told = {}
    for name, path in sorted(files.items()):
        told[name] = {"key": store.read_header(path)["key"], "sha256": keys.file_sha256(path)}
    index = {"format": FORMAT, "actprobe": actprobe.__version__, "what": what, "files": told}
    return {**found, INDEX: (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()}


def _digests(path: Path) -> tuple[str, str]:
    """What the hub may call a file by: its SHA-256, or git's id of it."""
    content = path.read_bytes() if path.stat().st_size < _BATCH // 64 else b""
    return keys.file_sha256(path), layout.git_id(content)


def _batches(files: Sequence[tuple[str, Path | bytes]]) -> Iterator[list[tuple[str, Path | bytes]]]:
    """Files of one commit each: not many, not large; what tells of the others comes last."""
    batch: list[tuple[str, Path | bytes]] = []
    size = 0
    for name, content in files:
        n = len(content) if isinstance(content, bytes) else content.stat().st_size
        if batch and (size + n > _BATCH or len(batch) == _FILES):
            yield batch
            batch, size = [], 0
        batch.append((name, content))
        size += n
    if batch:
        yield batch


def _commit(api: Any, repo: str, kind: str, batch: Sequence[tuple[str, Path | bytes]]) -> str:
    from huggingface_hub import CommitOperationAdd

    def send() -> Any:
        added = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in batch
        ]
        words = f"actprobe: {batch[0][0]}" + f" and {len(batch) - 1} more" * bool(batch[1:])
        return api.create_commit(repo, added, commit_message=words, repo_type=kind)

    return str(_ask(repo, f"send {batch[0][0]}", send).oid)


def _ask(repo: str, what: str, question: Callable[[], T]) -> T:
    """An answer of the hub, or its error in words, without addresses or tokens."""
    if reason := asking.offline():
        raise Unreachable(f"hub:{repo}: cannot {what}: {reason}")
    asking.keep_out_of_logs()
    try:
        return question()
    except ActprobeError:
        raise
    except Exception as e:
        found = asking.cause(e, repo)
        raise (found.final or Unreachable)(f"hub:{repo}: cannot {what}: {found.text}") from None


# Back --------------------------------------------------------------------------------------------


def _memo() -> DigestMemo:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return DigestMemo(Path(home) / "actprobe")


def fetched(source: str, names: Sequence[str]) -> Path:
    """The folder of a probe of the hub, in the hub's own cache, its files checked. Those of `names` that
    it does not have are left out."""
    repo, folder, revision = split(source)
    service = hub.Hub(_memo(), patient=True)
    commit = service.commit(repo, revision, source).sha
    wanted = [f"{folder}/{n}".lstrip("/") for n in names]
    there = service.listing(repo, commit)
    service.fetch(repo, commit, [n for n in wanted if n in there], source)
    return hub.snapshot(repo, commit) / folder


def pull(source: str, what: str, into: Path) -> list[Path]:
    """Bring files of a repository that `push` made to their places below a folder; returns the new ones.

    into: the cache of a config, for probes any folder. A sealed file is compared with its seal, with its
    name and with `actprobe.json`. Raises BadInput for a repository that holds something else.
    """
    repo, folder, revision = split(source)
    called = f"{DATASETS}{repo}" if KINDS[what] == "dataset" else repo
    service = hub.Hub(_memo(), patient=True)
    commit = service.commit(called, revision, source).sha
    there = service.listing(called, commit)
    names = [n for n in there if n.startswith(f"{folder}/" if folder else "")]
    here = hub.snapshot(called, commit)
    if what == PROBES:
        names = [n for n in names if n.endswith((".json", ".safetensors", ".csv", README))]
        if not any(n.endswith("probe.json") for n in names):
            raise BadInput(f"{source}: holds no probe.json; it is no repository of probes")
        service.fetch(called, commit, names, source)
        return [p for n in names if (p := _placed(here / n, into / n))]
    if INDEX not in there:
        raise BadInput(f"{source}: has no {INDEX}; it was not pushed from here")
    service.fetch(called, commit, [INDEX], source)
    told = _index(here / INDEX, what)
    wanted = [n for n in names if n in told and not (into / n).exists()]
    service.fetch(called, commit, wanted, source)
    for name in wanted:
        header = store.verify(here / name)
        key = store.file_key(name)
        if header["key"] != told[name]["key"] or key is None or not header["key"].startswith(key):
            raise Damaged(
                f"{source}: {name} has the key {header['key'][:12]}, not that of its name"
            )
    return [p for n in wanted if (p := _placed(here / n, into / n))]


def _index(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known, files = content["what"], dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{path}: not what a push writes: {e}") from None
    if known != what:
        raise BadInput(f"{path}: holds {known}, not {what}; say --what {known}")
    if bad := [n for n in files if not layout.is_safe(n)]:
        raise BadInput(f"{path}: {bad[0]!r} is no place below a folder")
    return files


def _placed(source: Path, to: Path) -> Path | None:
    """Put a file at its place whole; None where an equal one is there. Raises ActprobeError for
    another one."""
    if to.exists():
        if keys.file_sha256(to) != keys.file_sha256(source):
            raise ActprobeError(f"{to} is another file; move it away, or pull into another folder")
        return None
    to.parent.mkdir(parents=True, exist_ok=True)
    new = to.with_name(f".{to.name}.pulled")
    shutil.copyfile(source, new)
    os.replace(new, to)
    return to
