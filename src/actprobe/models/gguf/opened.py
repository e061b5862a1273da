"""The bytes and headers of a GGUF source, whole or in pieces."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.files.gguf import MAGIC, Header, Tensor, join, read_header
from actprobe.models.gguf.parts import Part

if TYPE_CHECKING:
    import numpy as np

VOCABULARY = tuple(f"tokenizer.ggml.{k}" for k in ("tokens", "scores", "token_type", "merges",
                                                   "precompiled_charsmap"))  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """Headers of the files that a source consists of. header: of all of them together; files: for
    each the parts that its bytes lie in; where: the file of each tensor."""

    header: Header
    files: tuple[tuple[Part, ...], ...]
    where: dict[str, int]
    what: str


def open_parts(parts: Sequence[Part], arrays: Collection[str] = ()) -> Opened:
    """What a source says of itself; its parts are here. Raises BadInput."""
    parts = tuple(parts)
    try:
        starts = tuple(_begins(p) for p in parts)
        sizes = tuple(p.size() for p in parts)
    except (OSError, KeyError, zipfile.BadZipFile) as e:
        raise BadInput(f"{parts[0].called}: cannot be read: {e}") from None
    _require_order(parts, starts)
    files = tuple((p,) for p in parts) if starts[-1] else (parts,)
    stamps = tuple(_stamp(p) for p in parts)
    return _opened(files, sizes, stamps, frozenset(arrays))


@lru_cache(maxsize=8)
def _opened(
    files: tuple[tuple[Part, ...], ...], sizes: tuple[int, ...], stamps: Any, arrays: frozenset[str]
) -> Opened:
    headers, at = [], 0
    for file in files:
        own = sizes[at : at + len(file)]
        at += len(file)
        with _Joined(file) as f:
            headers.append(read_header(f, sum(own), _called(file), arrays))
    if len(files) > 1 or headers[0].get("split.count", 1) > 1:
        headers = join(headers, [_called(f) for f in files])
    tensors = {name: t for h in headers for name, t in h.tensors.items()}
    where = {name: n for n, h in enumerate(headers) for name in h.tensors}
    header = Header(headers[0].values, tensors, sum(sizes))
    return Opened(header, files, where, _called(files[0]))


def _stamp(part: Part) -> tuple[int, int, int]:
    st = os.stat(part.where.get("wheel") or str(part.path()))
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns


def _called(file: Sequence[Part]) -> str:
    more = f" and {len(file) - 1} further pieces" if len(file) > 1 else ""
    return f"{file[0].called}{more}"


def _begins(part: Part) -> bool:
    with part.open() as f:
        return f.read(4) == MAGIC


def _require_order(parts: Sequence[Part], starts: Sequence[bool]) -> None:
    """Refuse pieces that cannot stand in this order: by how they begin, and by their names."""
    if len(parts) == 1:
        return
    if not starts[0]:
        first = next((p for p, s in zip(parts, starts, strict=True) if s), None)
        if first is None:
            raise BadInput(
                f"{parts[0].called}: it is no GGUF file, nor are the other pieces the first"
            )
        raise BadInput(
            f"the pieces are out of order: {first.called} is the first, and stands behind "
            f"{parts[0].called}"
        )
    if any(starts[1:]) and not all(starts):
        other = next(p for p, s in zip(parts[1:], starts[1:], strict=True) if s)
        raise BadInput(f"{other.called} begins a GGUF file of its own, and the other pieces do not")
    numbers = [[int(n) for n in re.findall(r"\d+", p.name)] for p in parts]
    for before, after, a, b in zip(numbers, numbers[1:], parts, parts[1:], strict=False):
        if len(before) == len(after) and before > after:
            raise BadInput(
                f"the pieces are out of order, by the numbers in their names: {b.name} stands behind "
                f"{a.name}"
            )


class _Joined:
    """The bytes of several parts, one after the other."""

    def __init__(self, parts: Sequence[Part]):
        self._left = list(parts)
        self._f: BinaryIO | None = None

    def read(self, size: int, /) -> bytes:
        while True:
            if self._f is None:
                if not self._left:
                    return b""
                self._f = self._left.pop(0).open()
            if piece := self._f.read(size):
                return piece
            self._f.close()
            self._f = None

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._f is not None:
            self._f.close()


class Bytes:
    """Positioned reads in files that follow one another."""

    def __init__(self, descriptors: Sequence[int]):
        self._files = [(fd, os.fstat(fd).st_size) for fd in descriptors]

    def read(self, t: Tensor, what: str) -> np.ndarray:
        """The bytes of a tensor, uint8."""
        import numpy as np

        out = np.empty(t.stop - t.start, np.uint8)
        view, begin, at = out.data, 0, 0
        for fd, size in self._files:
            while at < len(view) and begin <= t.start + at < begin + size:
                n = os.preadv(fd, [view[at : at + (1 << 30)]], t.start + at - begin)
                if n == 0:
                    raise ActprobeError(f"{what} became shorter while it was read; run again")
                at += n
            begin += size
        if at < len(view):
            raise ActprobeError(f"{what} became shorter while it was read; run again")
        return out


@contextmanager
def readable(files: Sequence[Sequence[Path]]) -> Iterator[list[Bytes]]:
    """The files of a source, open for reading; for each the paths that its bytes lie in."""
    with ExitStack() as stack:
        found = []
        for paths in files:
            opened = []
            for path in paths:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, opened[-1])
            found.append(Bytes(opened))
        yield found
