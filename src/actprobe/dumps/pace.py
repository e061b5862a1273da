"""How fast and how patiently to fetch."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How to fetch. None of it changes what is fetched.

    connections: ranges in flight at once; rate_limit: bytes per second over all of them; stall:
    seconds without a byte after which a connection is given up; least: bytes per second below which
    it is, too, counted over `stall` seconds; connect: seconds to connect; tries: attempts at
    a segment without progress, patience: seconds of them; backoff, longest_backoff: seconds, doubled
    with every such attempt; segment: bytes per request (None: by file size).
    """

    connections: int = 8
    rate_limit: float | None = None
    stall: float = 30.0
    least: float = 1000.0
    connect: float = 10.0
    tries: int = 8
    patience: float = 600.0
    backoff: float = 0.25
    longest_backoff: float = 30.0
    segment: int | None = None


class Limiter:
    """Lets `rate` bytes a second pass, over all threads together."""

    def __init__(self, rate: float | None):
        self._rate, self._free_at, self._lock = rate, 0.0, threading.Lock()

    def take(self, n: int) -> None:
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + n / self._rate
            wait = self._free_at - time.monotonic()
        time.sleep(max(wait, 0.0))
