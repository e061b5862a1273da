"""Open files: an activations job holds two for each target that it fills, its part and the lock."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Sequence

from actprobe.models.records import ActivationTarget

log = logging.getLogger(__name__)

_EACH = 2  # of a target
_SPARE = 64  # for libraries, the log, files that are opened and closed at once
_MOST = 1 << 16  # some programs look at every number up to the limit


def raise_limit() -> None:
    """Let this process open as many files as it may set itself (`ulimit -n` up to `ulimit -Hn`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def in_turn(targets: Sequence[ActivationTarget], name: str) -> list[list[ActivationTarget]]:
    """The targets in as few groups as can have their files open at once, lower layers first."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = max(1, (limit - len(os.listdir("/dev/fd")) - _SPARE) // _EACH)
    if limit == resource.RLIM_INFINITY or len(targets) <= free:
        return [list(targets)]
    groups = -(-len(targets) // free)
    log.warning(
        "%s: %d targets are more than the %d that can be open at once: the rows go through the model "
        "%d times; `ulimit -Hn` above %d avoids it",
        name, len(targets), free, groups, limit,
    )  # fmt: skip
    ordered = sorted(targets, key=lambda t: int(t.args.site.partition(".")[2] or 0))
    return [ordered[k * len(ordered) // groups : (k + 1) * len(ordered) // groups]
            for k in range(groups)]  # fmt: skip
