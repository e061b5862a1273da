"""The hub as a plan or a job needs it: commits, lists of files, small files, and all of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.files.hub import asking, commits, download, layout, placing, transfer
from actprobe.files.hub.asking import Line, NotThere
from actprobe.files.hub.layout import Entry, Listing
from actprobe.files.hub.names import of_client
from actprobe.files.hub.progress import Progress

log = logging.getLogger(__name__)

T = TypeVar("T")

_SMALL = 64 << 20  # bytes of a file that a plan may fetch


@dataclass(frozen=True)
class Commit:
    """A commit of a repository and the revision that was asked for."""

    sha: str
    asked: str


class Hub:
    """The hub during one plan, or one job (`patient`). A question that failed is not asked again.

    memo: digests of what lies in the hub cache; what it knows of a run is kept beside it.
    """

    def __init__(self, memo: DigestMemo, patient: bool = False) -> None:
        self._memo = memo
        self._cache_dir = memo.file.parent
        self._line = Line(patient)
        self._brief = Line(patient=False) if patient else self._line
        self._commits: dict[tuple[str, str], Commit] = {}
        self._failed: dict[tuple[str, ...], ActprobeError] = {}

    def commit(self, repo: str, revision: str | None, where: str) -> Commit:
        """The commit of a branch, tag or abbreviated hash: asked for, else as it was last known.

        Raises ConfigError or Unreachable, naming the key `where` of the config, when neither tells.
        """
        revision = revision or "main"
        if re.fullmatch(r"[0-9a-fA-F]{40}", revision):
            return Commit(revision.lower(), revision.lower())
        if (repo, revision) not in self._commits:
            sha = self._resolve(repo, revision, where)
            self._commits[repo, revision] = Commit(sha, revision)
        return self._commits[repo, revision]

    def _resolve(self, repo: str, revision: str, where: str) -> str:
        try:
            sha, _ = self._info(repo, revision)
        except ActprobeError as e:
            return self._known(repo, revision, where, e)
        commits.remember(self._cache_dir, repo, revision, sha)
        return sha

    def _known(self, repo: str, revision: str, where: str, error: ActprobeError) -> str:
        """The commit that a revision was; raises the error where that is not known or not wanted."""
        known = commits.recall(self._cache_dir, repo, revision)
        if known is None and (ref := layout.reference(repo, revision)):
            known = commits.Known(ref, "is in the local hub cache")
        if known is None and (whole := layout.abbreviated(repo, revision)):
            return whole
        if known is None or isinstance(error, NotThere):
            pin = f"{known.commit}, which {known.said}" if known else "the full 40-digit commit"
            raise type(error)(f"{where}.revision: {error}; pin revision to {pin}") from None
        log.warning(
            "%s.revision: %s; going on with commit %s, which %s (revision: %s pins it)",
            where, error, known.commit[:8], known.said, known.commit,
        )  # fmt: skip
        return known.commit

    def _info(
        self, repo: str, revision: str, files: bool = False, line: Line | None = None
    ) -> tuple[str, Listing]:
        """Commit of a revision and, when asked for, its files."""
        from huggingface_hub import HfApi

        called, kind = of_client(repo)

        def question() -> tuple[Any, Listing]:
            info: Any = HfApi().repo_info(
                called, repo_type=kind, revision=revision, timeout=asking.ANSWER,
                files_metadata=files,
            )  # fmt: skip
            if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
                raise ValueError("it names no commit")
            return info, {s.rfilename: _entry(s) for s in info.siblings or ()} if files else {}

        what = f"hub:{repo} at {_shown(revision)}"
        info, listed = self._once((repo, revision), what, repo, question, line)
        if info.id and info.id != called:
            key = "path" if kind == "dataset" else "source"
            log.warning("hub:%s is called %s there; write %s: hub:%s", repo, info.id, key, info.id)
        return info.sha, listed

    def _once(
        self,
        key: tuple[str, ...],
        what: str,
        repo: str,
        question: Callable[[], T],
        line: Line | None = None,
    ) -> T:
        if key in self._failed:
            raise self._failed[key]
        try:
            return (line or self._line).ask(what, repo, question)
        except ActprobeError as e:
            self._failed[key] = e
            raise

    def listing(self, repo: str, commit: str, brief: bool = False) -> Listing:
        """The files of a commit: as listed on this machine before, else asked for.

        brief: no more patiently than a plan does, where there is something to fall back on.
        """
        found = layout.listing(repo, commit)
        if found is None:
            _, listed = self._info(repo, commit, True, self._brief if brief else self._line)
            found = {n: e for n, e in listed.items() if layout.is_safe(n)}
            layout.keep_listing(repo, commit, found)
        return found

    def small(self, repo: str, commit: str, name: str) -> Path:
        """A small file of a commit, from the local hub cache or fetched now.

        Raises NotThere when the commit has no such file, Damaged when what is here is not it.
        """
        path = layout.snapshot(repo, commit) / name
        files = layout.listing(repo, commit)
        if layout.lacking(repo, commit, [name]):
            files = self.listing(repo, commit)
            what = f"hub:{repo}/{name} at {commit[:8]}"
            if name not in files:
                raise NotThere(f"{what}: it has no such file")
            if files[name].size > _SMALL:
                raise ConfigError(f"{what}: {files[name].size:,} bytes, expected a small file")
            content = self._once(
                (repo, commit, name), what, repo,
                lambda: transfer.content(repo, commit, name, files[name]),
            )  # fmt: skip
            placing.put(repo, commit, name, files[name], content)
        layout.require_whole(path, self._memo, files[name] if files else None)
        return path

    def fetch(self, repo: str, commit: str, names: Sequence[str], title: str) -> None:
        """Have these files of a commit in the local hub cache, whole, their digests checked.

        title: of the progress in the log. Raises Unreachable, Damaged or ConfigError by cause.
        """
        missing = layout.lacking(repo, commit, names)
        files = self.listing(repo, commit) if missing else layout.listing(repo, commit)
        if unknown := [n for n in missing if files is not None and n not in files]:
            raise NotThere(f"hub:{repo}/{unknown[0]} at {commit[:8]}: it has no such file")
        here = [n for n in names if n not in missing]
        self._check(repo, commit, here, title)
        if missing:
            assert files is not None
            asked = {n: files[n] for n in missing}
            checked = download.fetch(repo, commit, asked, title)
            self._check(repo, commit, sorted(asked.keys() - checked), title)
        self._memo.save()

    def _check(self, repo: str, commit: str, names: Sequence[str], title: str) -> None:
        """Digests of files that are here, with progress for those that are not remembered."""
        sizes = {n: layout.length(layout.snapshot(repo, commit) / n) or 0 for n in names}
        progress = Progress(f"{title}: checking", sizes, download.EVERY)
        for name in names:
            self.require_whole(repo, commit, name, partial(progress.add, name))
            progress.start(name, sizes[name])

    def require_whole(
        self, repo: str, commit: str, name: str, progress: Callable[[int], None] | None = None
    ) -> None:
        """Raise Damaged when a file that is here is not what it was listed as, or its blob's name."""
        entry = (layout.listing(repo, commit) or {}).get(name)
        path = layout.snapshot(repo, commit) / name
        layout.require_whole(path, self._memo, entry, progress)


def _shown(revision: str) -> str:
    return revision[:8] if re.fullmatch(r"[0-9a-f]{40}", revision) else f"revision {revision!r}"


def _entry(sibling: Any) -> Entry:
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if not isinstance(size, int) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest or ""):
        raise ValueError(f"it does not say the size and digest of {sibling.rfilename}")
    return Entry(size, digest)


def of(memo: DigestMemo) -> Hub:
    """The hub of the plan that uses this memory of digests: its questions are shared."""
    kept = vars(memo)
    if "_hub" not in kept:
        kept["_hub"] = Hub(memo)
    return kept["_hub"]
