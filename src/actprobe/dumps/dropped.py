"""What a broken connection means, in words and without the URL that a library's error may hold."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import requests
import urllib3

from actprobe.dumps.patience import TooSlow

BROKEN = (
    requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError,
    ValueError,
)  # fmt: skip


class Dropped(Exception):
    """The range did not arrive, trying again makes sense; `wait`: seconds the server asked for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def dropped(error: Exception, host: str) -> Dropped:
    """What a library's error means, without the URL that its text may hold."""
    chain = list(_chain(error))
    for e in chain:
        if isinstance(e, TooSlow):
            return Dropped(str(e))
    at = f" to {host}" if host else ""
    if any(isinstance(e, urllib3.exceptions.NameResolutionError) for e in chain):
        return Dropped(f"no connection{at}: its name is not known (DNS)")
    if any(isinstance(e, requests.ConnectTimeout) for e in chain):
        return Dropped(f"no connection{at} in time")
    known = next((e.strerror for e in chain if isinstance(e, OSError) and e.strerror), None)
    return Dropped(f"connection{at}: {known}" if known else type(chain[-1]).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it, however its library keeps that."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        e = waiting.pop(0)
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        waiting += [e.__cause__, e.__context__, getattr(e, "reason", None), *e.args]
