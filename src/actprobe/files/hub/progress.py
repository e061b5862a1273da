"""Progress of a fetch: one line in the log every few seconds, readable without a terminal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

_WINDOW = 30.0  # seconds over which the rate is taken


class Progress:
    """Bytes received per file and in total. `add` may be called from any thread.

    sizes: file name -> bytes; every: seconds between lines.
    """

    def __init__(self, title: str, sizes: Mapping[str, int], every: float = 10.0):
        self._title, self._sizes, self._every = title, dict(sizes), every
        self._have = dict.fromkeys(sizes, 0)
        self._lock = threading.Lock()
        self._said = time.monotonic()
        self._past = [(self._said, dict(self._have))]

    def start(self, name: str, already: int) -> None:
        """A file is begun (again) with `already` bytes of it there."""
        with self._lock:
            self._have[name] = already
            for _, have in self._past:
                have[name] = already

    def add(self, name: str, n: int) -> None:
        """`n` more bytes of a file have arrived; says so in the log when it is time."""
        now = time.monotonic()
        with self._lock:
            self._have[name] += n
            if now - self._said < self._every:
                return
            self._said = now
            line = self._line(now)
            self._past.append((now, dict(self._have)))
            while len(self._past) > 2 and now - self._past[1][0] > _WINDOW:
                del self._past[0]
        log.info("%s", line)

    def _line(self, now: float) -> str:
        then, before = self._past[0]
        seconds = max(now - then, 1e-3)
        total, have = sum(self._sizes.values()), sum(self._have.values())
        rate = (have - sum(before.values())) / seconds
        moving = []
        for name, size in self._sizes.items():
            speed = (self._have[name] - before[name]) / seconds
            if speed > 0 and self._have[name] < size:
                left = (size - self._have[name]) / speed
                moving.append(f"{name} {self._have[name] / size:.0%}, {_duration(left)}")
        return (
            f"{self._title}: {have / 1e6:,.0f} of {total / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s, "
            f"{_duration((total - have) / rate) if rate > 0 else 'unknown time'} left"
            + (f" ({'; '.join(moving[:4])}{'; …' if len(moving) > 4 else ''})" if moving else "")
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
