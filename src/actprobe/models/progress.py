"""Progress of a job in its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two lines


class Progress:
    """Logs rate and time left, over all datasets of the job."""

    def __init__(self, costs: Mapping[str, float], name: str):
        self._costs, self._name = dict(costs), name
        self._start = self._last = time.monotonic()
        self._done_cost = 0.0
        self._all_tokens = self._tokens = 0

    def advance(self, dataset: str, tokens: int, total: int) -> None:
        """`tokens` more of the dataset's `total` went through the model."""
        self._tokens += tokens
        self._all_tokens += tokens
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        share = (
            self._done_cost + self._costs[dataset] * min(1.0, self._tokens / max(total, 1))
        ) / (sum(self._costs.values()) or 1.0)
        elapsed = now - self._start
        log.info("%s: %s, %.0f %% of all, %.0f tokens/s, %s left", self._name, dataset,
                 100 * share, self._all_tokens / elapsed,
                 _duration(elapsed / max(share, 1e-6) - elapsed))  # fmt: skip

    def finished(self, dataset: str) -> None:
        """The dataset is done."""
        self._done_cost += self._costs[dataset]
        self._tokens = 0


def _duration(seconds: float) -> str:
    m, s = divmod(int(seconds), 60)
    return f"{m // 60} h {m % 60} min" if m >= 60 else f"{m} min {s} s" if m else f"{s} s"
