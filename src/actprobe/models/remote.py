"""A model on the hub: its files as the hub lists them, looked at in the plan, fetched in the job."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError, Unreachable
from actprobe.config import nearest
from actprobe.files import hub
from actprobe.models import files
from actprobe.models.view import keep_for

log = logging.getLogger(__name__)

Lacks = Callable[[str], str | None]


@dataclass(frozen=True)
class Remote:
    """A folder of a commit of a repository; `folder` is "" for its top."""

    service: hub.Hub
    repo: str
    commit: str
    folder: str

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"hub:{'/'.join(filter(None, [self.repo, self.folder]))} at {self.commit[:8]}"

    @property
    def here(self) -> Path:
        """Where its files lie on this machine, once they are fetched."""
        return hub.snapshot(self.repo, self.commit) / self.folder

    def look(self, adapter: str | None, where: str) -> tuple[Any, Lacks]:
        """Its `config.json`, and for each site a file that a job has to fetch, if it has to fetch any.

        What names alone tell is checked. Asks the hub only for what is not here. Raises ConfigError,
        hub.Refused, Unreachable or Damaged.
        """
        kept = self._kept(adapter, where)
        names = kept or self.names(where)
        found = files.find(
            names,
            lambda n: self.read(n) if n == files.CONFIG else None,
            adapter,
            where,
            self.called,
        )
        config = self.read(files.CONFIG)
        if kept:
            return config, lambda site: None
        with contextlib.suppress(OSError, ValueError):  # the index may not be here yet
            found = files.find(names, self._read_here, adapter, where, self.called)
        listed = hub.listing(self.repo, self.commit) or {}
        for name in found.all:
            if (entry := listed.get(self._path(name))) is not None:
                hub.require_length(self.here / name, entry)
        return config, self._lacks(config, found)

    def _lacks(self, config: Mapping[str, Any], found: files.Files) -> Lacks:
        """For each site a file that is not here."""
        missing = set(hub.lacking(self.repo, self.commit, map(self._path, found.all)))

        @cache
        def among(layers: int) -> str | None:
            keep = keep_for(config, found.parameters or (), layers)
            shards = [s for p, s in (found.parameters or {}).items() if keep(p)]
            wanted = (*found.small, found.main, *(shards or found.shards))
            return next((p for n in wanted if (p := self._path(n)) in missing), None)

        return lambda site: among(int(site.partition(".")[2] or 0) + 1) if missing else None

    def names(self, where: str, brief: bool = False) -> list[str]:
        """Paths below the folder. Raises ConfigError for a folder that the commit does not have."""
        listed = self.service.listing(self.repo, self.commit, brief)
        prefix = f"{self.folder}/" if self.folder else ""
        found = [n.removeprefix(prefix) for n in listed if n.startswith(prefix)]
        if not found:
            folders = {str(p) for n in listed for p in list(Path(n).parents)[:-1]}
            raise ConfigError(
                f"{where}.source: hub:{self.repo} at {self.commit[:8]} has no folder "
                f"{self.folder}; {nearest(self.folder, folders)}"
            )
        return found

    def _kept(self, adapter: str | None, where: str) -> list[str]:
        """What is here of a commit that was never listed on this machine, if it is a whole model."""
        if hub.listing(self.repo, self.commit) is not None:
            return []
        found = [p.relative_to(self.here).as_posix() for p in self.here.rglob("*") if p.is_file()]
        try:
            chosen = files.find(found, self._read_here, adapter, where, self.called)
        except (ConfigError, OSError, ValueError):
            return []
        return found if "tokenizer" in chosen.groups() and chosen.shards else []

    def _read_here(self, name: str) -> Any:
        return json.loads((self.here / name).read_text(encoding="utf-8"))

    def find(self, adapter: str | None, where: str) -> files.Files:
        """Its files, for a job. What is needed to know them is fetched.

        Raises Unreachable where the hub must be asked and does not answer.
        """
        kept = self._kept(adapter, where)
        try:
            names = self.names(where, brief=bool(kept))
        except Unreachable as e:
            if not kept:
                raise
            names = kept
            log.warning("%s; what is here of it is taken as complete", e)
        return files.find(names, self.read, adapter, where, self.called)

    def read(self, name: str) -> Any:
        """The content of a small JSON file of it."""
        path = self.service.small(self.repo, self.commit, self._path(name))
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise ConfigError(f"{self.called}: {name} cannot be read as JSON: {e}") from None

    def fetch(self, names: Iterable[str]) -> None:
        """Have these files here, whole."""
        paths = [self._path(n) for n in names]
        self.service.fetch(self.repo, self.commit, paths, self.called)

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name
