"""Signed URLs of the files of a fetch: asked for once, renewed by one thread when they expire."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from actprobe.errors import ActprobeError

Ask = Callable[[str, Sequence[str]], Mapping[str, str]]


def keep_out_of_logs() -> None:
    """urllib3 writes every URL that it asks for, signature included, at level DEBUG."""
    logging.getLogger("urllib3").setLevel(logging.INFO)


class Urls:
    """ask(source, paths) -> {path: URL}; the first question names all files of a source.

    files: (source, path) of everything that may be asked for.
    """

    def __init__(self, ask: Ask, files: Iterable[tuple[str, str]]):
        self._ask = ask
        self._lock = threading.Lock()
        self._failed: dict[str, ActprobeError] = {}
        self._urls: dict[tuple[str, str], str] = {}
        self._paths: dict[str, list[str]] = defaultdict(list)
        for source, path in files:
            self._paths[source].append(path)

    def get(self, source: str, path: str, expired: str | None = None) -> str:
        """The URL of a file, another one than `expired`.

        Of many threads whose URL expired only the first asks; the others wait for its answer.
        A question that failed is not asked again for other files of its source: its error is raised
        at once. Raises KeyError when the service does not know the file (any more).
        """
        with self._lock:
            if self._urls.get((source, path), expired) == expired:
                paths = [path] if expired else self._paths[source]
                if source in self._failed:
                    raise self._failed[source]
                try:
                    answer = self._ask(source, paths)
                except ActprobeError as e:
                    self._failed[source] = e
                    raise
                for p in paths:
                    self._urls.pop((source, p), None)
                    if p in answer:
                        self._urls[source, p] = answer[p]
            return self._urls[source, path]
