"""Arrays of a `.npz` archive: read in place where they are stored, streamed where they are packed.

Arrays of Python objects are pickles and are never read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from actprobe.errors import bad_file
from actprobe.files.arrays import Flat, Opened, add, descriptor, whole_bools
from actprobe.files.dtypes import NUMPY
from actprobe.files.npy import NpyHeader, read_npz_headers
from actprobe.files.zips import DAMAGED, Member

_PIECE = 1 << 22  # bytes unpacked at a time


@contextmanager
def open_npz(path: Path) -> Iterator[Opened]:
    """The arrays of an open archive; see `arrays.open_arrays`."""
    headers = read_npz_headers(path)
    with descriptor(path) as fd, zipfile.ZipFile(path) as z:
        found = Opened(str(path))
        for name, (h, m) in headers.items():

            def make(dtype: str, name: str = name, h: NpyHeader = h, m: Member = m) -> Any:
                if m.stored:
                    return Flat(str(path), name, fd, m.start + h.offset, h.shape, dtype)
                return _Packed(str(path), name, z, h, dtype)

            add(found, name, h.shape, h.name, f"dtype {h.dtype}", make)
        yield found


@dataclass
class _Packed:
    """A compressed member. Rows in order cost one pass; going back begins anew."""

    file: str
    name: str
    archive: zipfile.ZipFile
    header: NpyHeader
    dtype: str
    _stream: IO[bytes] | None = field(default=None, repr=False)
    _at: int = 0  # bytes of data read

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), NUMPY[self.dtype])
        begin = start * math.prod(self.shape[1:]) * out.itemsize
        try:
            if self._stream is None or self._at > begin:
                self._stream, self._at = self.archive.open(f"{self.name}.npy"), 0
                self._read(memoryview(bytearray(self.header.offset)))
                self._at = 0
            while self._at < begin:
                self._read(memoryview(bytearray(min(_PIECE, begin - self._at))))
            self._read(out.reshape(-1).view(np.uint8).data)
        except DAMAGED as e:
            raise bad_file(self.file, e, f"{self.name}: damaged or cut short: ") from None
        return whole_bools(out)

    def _read(self, into: memoryview) -> None:
        assert self._stream is not None
        while into:
            n = self._stream.readinto(into)  # type: ignore[attr-defined]
            if not n:
                raise EOFError("it ends early")
            self._at += n
            into = into[n:]
