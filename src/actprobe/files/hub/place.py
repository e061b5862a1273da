"""Where a job finds something of the hub, and why it cannot be had where that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache.plan import Record


@dataclass(frozen=True, kw_only=True)
class Place(Record):
    """A commit of a repository.

    asked: the branch, tag or commit that was asked for; cache_dir: of what is remembered of the hub.
    lacks: a file that has to be fetched. refused, unreachable: why it cannot be had for good, or now.
    """

    repo: str
    revision: str
    asked: str | None = None
    cache_dir: str
    lacks: str | None = None
    refused: str | None = None
    unreachable: str | None = None

    def without(self, error: ActprobeError) -> Self:
        """The place with the reason why it cannot be read now."""
        if isinstance(error, ConfigError):
            return replace(self, refused=str(error))
        return replace(self, unreachable=str(error))
