"""The verified files of a site, and what both kinds of assembly share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from actprobe.base.errors import Damaged
from actprobe.cache import store
from actprobe.dumps.digests import verify_file
from actprobe.dumps.records import AssembleTarget, RawFile
from actprobe.dumps.tokens import Tokens, open_tokens
from actprobe.files import UNKNOWN, Array, Opened, limits, open_arrays

SLICE = 1 << 22  # bytes of an array in memory


@dataclass(frozen=True)
class Chunk:
    """One file of a site: its name in the dump, its digest, and what it holds."""

    file: str
    digest: str
    opened: Opened

    @property
    def arrays(self) -> Mapping[str, Array]:
        return self.opened.arrays


def _verified(chunk: RawFile) -> tuple[str, str]:
    """Path and extension of a downloaded file that is still what it should be.

    A damaged one is set aside, and Damaged raised: the next run fetches that file alone.
    """
    path = chunk.path
    try:
        verify_file(path, chunk.key)
    except Damaged as e:
        store.set_aside(path, str(e))
        raise Damaged(f"{chunk.file}: {e}. It was set aside; run again to fetch it") from None
    return path, path.rpartition(".")[2]


class _OneOpen:
    """Keeps the file open that was read last: a dump may have more files than a process may open."""

    def __init__(self, opened: ExitStack):
        self._opened, self._path = opened, ""
        self._now: Opened | None = None

    def open(self, path: str, kind: str) -> Opened:
        """A file, open until another one is asked for."""
        if self._now is None or self._path != path:
            self._now = None
            self._opened.close()
            self._now = self._opened.enter_context(open_arrays(path, kind))
            self._path = path
        return self._now


@dataclass(frozen=True)
class _Closed:
    """An array whose file is opened when it is read."""

    files: _OneOpen
    path: str
    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: str

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.files.open(self.path, self.kind).arrays[self.name].rows(start, stop)


@contextmanager
def open_chunks(chunks: Sequence[RawFile]) -> Iterator[list[Chunk]]:
    """The files of a site, each checked against its digest; one at a time
    is open."""
    with ExitStack() as opened:
        files = _OneOpen(opened)
        found = []
        for c in chunks:
            path, kind = _verified(c)
            now = files.open(path, kind)
            arrays: dict[str, Array] = {
                name: _Closed(files, path, kind, name, a.shape, a.dtype)
                for name, a in now.arrays.items()
            }
            found.append(Chunk(c.file, c.key, replace(now, file=c.file, arrays=arrays)))
        yield found


@contextmanager
def open_token_files(t: AssembleTarget) -> Iterator[Tokens]:
    """The tokens of a target's dump, from files that were checked against their digests."""
    folder = Path(t.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with open_tokens([_verified(c) for c in t.args.tokens], folder) as found:
        yield found


def ignored(chunks: Sequence[Chunk], used: Iterable[str]) -> list[str]:
    """What the files hold and an assembly does not read, for its facts."""
    names = {n: f"{n} {a.dtype}" for c in chunks for n, a in c.arrays.items() if n not in used}
    names |= {n: f"{n}: {what}" for c in chunks for n, what in c.opened.ignored.items()}
    return sorted(names.values())[: limits.TOLD]


def token_arrays(tokens: Tokens | None, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays that say which token a row is: offsets int64 [N+1], token_ids int32 [T] and, for
    tokens that are strings, the vocabulary as UTF-8 bytes with their offsets int64 [V+1]."""
    if tokens is None:
        return {"offsets": offsets, "token_ids": np.full(offsets[-1], UNKNOWN, np.int32)}
    found = {"offsets": offsets, "token_ids": tokens.ids}
    if tokens.vocabulary is not None:
        words = [w.encode() for w in tokens.vocabulary]
        found["vocabulary"] = np.frombuffer(b"".join(words), np.uint8)
        found["vocabulary_offsets"] = np.cumsum([0, *map(len, words)], dtype=np.int64)
    return found


def write(part: store.Part, name: str, values: np.ndarray) -> None:
    """Copy an array into a part slice by slice; it may be a memory map."""
    step = max(1, SLICE // max(1, values[:1].nbytes))
    for start in range(0, len(values), step):
        part[name][start : start + step] = values[start : start + step]
