"""Arrays of a `.npz` archive: read in place where they are stored, streamed where they are packed.

Arrays of Python objects are pickles and are never read.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits
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


def read_strings(path: str | Path, name: str) -> list[str] | None:
    """A one-dimensional array of text in an archive, such as ids; None where there is none.

    NumPy's fixed widths alone (`<U12` and UTF-8 in `|S12`): an array of Python objects is a pickle.
    """
    headers = read_npz_headers(path)
    h, m = headers.get(name, (None, None))
    kind = re.fullmatch(r"([<|])([US])([1-9]\d{0,8})", h.dtype) if h else None
    if h is None or m is None or kind is None or len(h.shape) != 1:
        return None
    dtype = np.dtype(h.dtype)
    size = h.offset + h.shape[0] * dtype.itemsize
    limits.check(f"{path}: bytes of {name!r}", size, limits.IN_MEMORY)
    if m.size != size:
        raise BadInput(f"{path}: {name}: {m.size:,} bytes do not fit {h.shape} {h.dtype}")
    try:
        with zipfile.ZipFile(path) as z:
            values = np.frombuffer(z.read(f"{name}.npy"), dtype, offset=h.offset).tolist()
        return [v if isinstance(v, str) else v.decode("utf-8") for v in values]
    except DAMAGED as e:
        raise bad_file(path, e, f"{name}: damaged or cut short: ") from None
