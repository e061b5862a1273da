"""Signed URLs of the files of a fetch: asked for in parallel, once, renewed when they expire."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from actprobe.base.errors import ActprobeError, Unreachable

Ask = Callable[[str, Sequence[str]], Mapping[str, str]]
_QUESTIONS = 16  # at once


class Urls:
    """ask(source, paths) -> {path: URL}; the first question names all files of a source.

    files: (source, path) of everything that may be asked for.
    """

    def __init__(self, ask: Ask, files: Iterable[tuple[str, str]]):
        self._ask = ask
        self._failed: dict[str, ActprobeError] = {}
        self._down: Unreachable | None = None
        self._urls: dict[tuple[str, str], str] = {}
        self._paths: dict[str, list[str]] = defaultdict(list)
        for source, path in files:
            self._paths[source].append(path)
        self._locks = {source: threading.Lock() for source in self._paths}

    def ask_ahead(self) -> None:
        """Ask for the URLs of all sources, some at a time; returns at once.

        An error is raised where the URL is needed.
        """
        if len(self._paths) < 2:
            return
        waiting = list(reversed(self._paths))

        def work() -> None:
            while waiting and self._down is None:
                with contextlib.suppress(ActprobeError, KeyError, IndexError):
                    source = waiting.pop()
                    self.get(source, self._paths[source][0])

        for _ in range(min(_QUESTIONS, len(waiting))):
            threading.Thread(target=work, daemon=True).start()

    def get(self, source: str, path: str, expired: str | None = None) -> str:
        """The URL of a file, another one than `expired`.

        Of many threads that ask about one source only the first does; the others wait for its
        answer. A question that failed is not asked again for other files of its source, nor for any
        when the service cannot be reached: its error is raised at once. Raises KeyError when the
        service does not know the file (any more).
        """
        with self._locks[source]:
            if self._urls.get((source, path), expired) == expired:
                paths = [path] if expired else self._paths[source]
                if error := self._failed.get(source) or self._down:
                    raise error
                answer = self._answer(source, paths)
                for p in paths:
                    self._urls.pop((source, p), None)
                    if p in answer:
                        self._urls[source, p] = answer[p]
            return self._urls[source, path]

    def _answer(self, source: str, paths: Sequence[str]) -> Mapping[str, str]:
        try:
            return self._ask(source, paths)
        except ActprobeError as e:
            self._failed[source] = e
            if isinstance(e, Unreachable):
                self._down = e
            raise

    def gone(self, files: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the files (source, path) that the service, asked once more, does not list as it
        did."""
        asked: dict[str, list[str]] = defaultdict(list)
        for source, path in files:
            asked[source].append(path)
        return [
            (source, path)
            for source, paths in asked.items()
            for path in sorted(set(paths) - set(self._ask(source, paths)))
        ]
