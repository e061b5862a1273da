"""One way to read arrays of other people's files: what there is, and rows of it, bit by bit.

A file is opened by its header alone; nothing in it is run. Before anything is allocated the header
must be possible: known dtypes, every byte inside the file, sizes within `limits`. What is no array
of numbers is left out and listed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.files import limits
from actprobe.files.dtypes import NUMPY, SAFETENSORS
from actprobe.files.safetensors import read_header

UNKNOWN = -1  # a token id or a count that a file does not tell


class Array(Protocol):
    """An array in an open file. dtype is a name of `dtypes.NUMPY`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), native byte order, a copy."""
        ...


@dataclass(frozen=True)
class Opened:
    """What an open file (`file`: its path) holds.

    arrays: by name, at least one-dimensional ("" for the only one of a `.npy` or a lone tensor;
    names inside containers joined with "."); metadata: plain values by name; ignored: what is no
    array of numbers, by name, and what it is instead; numbers: tensors of a `.pt` that are a single
    float. Of the last three the first `limits.TOLD`.
    """

    file: str
    arrays: dict[str, Array] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def ignore(self, name: str, what: str) -> None:
        """Note an entry that is left out."""
        if len(self.ignored) < limits.TOLD:
            self.ignored[name] = what

    @property
    def told(self) -> str:
        """The arrays, and what was ignored, in words for a message."""
        names = [f"{n[:80]!r} {a.shape} {a.dtype}" for n, a in list(self.arrays.items())[:20]]
        more = len(self.arrays) - len(names)
        words = ", ".join(names) + (f" and {more} more" if more else "")
        left = ", ".join(f"{n[:80]!r} ({what})" for n, what in list(self.ignored.items())[:10])
        return (words or "none") + (f"; ignored: {left}" if left else "")


def open_arrays(path: str | Path, kind: str | None = None) -> AbstractContextManager[Opened]:
    """The arrays of a file.

    kind: its extension (pt, pth, safetensors, npy, npz, h5, hdf5), where the name does not say it.
    Raises BadInput naming the file for an unknown kind, a header that cannot be true, and more than
    `limits` allow.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".") if kind is None else kind
    readers = {
        "safetensors": _safetensors, "npy": _npy, "npz": _npz, "pt": _pt, "pth": _pt, "h5": _hdf5,
        "hdf5": _hdf5,
    }  # fmt: skip
    if kind not in readers:
        raise BadInput(
            f"{path}: cannot read arrays from a .{kind} file; expected one of {', '.join(readers)}"
        )
    return readers[kind](path)


def _pt(path: Path) -> AbstractContextManager[Opened]:
    from actprobe.files.pt import open_pt

    return open_pt(path)


def _hdf5(path: Path) -> AbstractContextManager[Opened]:
    from actprobe.files.hdf5 import open_hdf5

    return open_hdf5(path)


@contextmanager
def descriptor(path: Path) -> Iterator[int]:
    """A file open for positioned reads."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


@dataclass(frozen=True)
class Flat:
    """A C-ordered array at a known place of an open file. Raises BadInput when it is not inside."""

    file: str
    name: str
    descriptor: int
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        limits.check_shape(f"{self.file}: array {self.name!r}", self.shape)
        stop = self.offset + math.prod(self.shape) * NUMPY[self.dtype].itemsize
        size = os.fstat(self.descriptor).st_size
        if stop > size:
            raise BadInput(
                f"{self.file}: array {self.name!r} {self.shape} {self.dtype} would end at byte "
                f"{stop:,} of a file of {size:,} bytes"
            )

    def rows(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), NUMPY[self.dtype])
        view, at = out.reshape(-1).view(np.uint8).data, 0
        begin = self.offset + start * math.prod(self.shape[1:]) * out.itemsize
        while at < len(view):
            n = os.preadv(self.descriptor, [view[at:]], begin + at)
            if n == 0:
                raise BadInput(f"{self.file}: ends at byte {begin + at}, in the middle of an array")
            at += n
        return whole_bools(out)


def whole_bools(out: np.ndarray) -> np.ndarray:
    """Bytes other than 0 and 1, which a file may hold as bool, are true."""
    return out.view(np.uint8) != 0 if out.dtype == bool else out


def add(found: Opened, name: str, shape: tuple[int, ...], dtype: str | None, foreign: str,
        make: Callable[[str], Array]) -> None:  # fmt: skip
    """Add an array, unless it is a single number or `dtype` is None (`foreign`: what it is then).

    make: dtype -> the array.
    """
    if dtype is None:
        found.ignore(name, foreign)
    elif not shape:
        found.ignore(name, f"a single {dtype}")
    elif name in found.arrays:
        raise BadInput(f"{found.file}: two arrays are called {name!r}")
    else:
        found.arrays[name] = make(dtype)


@contextmanager
def _safetensors(path: Path) -> Iterator[Opened]:
    header = read_header(path)
    with descriptor(path) as fd:
        found = Opened(str(path), metadata=dict(list(header.metadata.items())[: limits.TOLD]))
        for name, t in header.tensors.items():
            make = partial(Flat, str(path), name, fd, t.start, t.shape)
            add(found, name, t.shape, SAFETENSORS.get(t.dtype), f"dtype {t.dtype}", make)
        yield found


@contextmanager
def _npy(path: Path) -> Iterator[Opened]:
    from actprobe.files.npy import read_npy_header

    with descriptor(path) as fd, open(path, "rb") as f:
        h = read_npy_header(f, str(path))
        if (dtype := h.name) is None:
            raise BadInput(f"{path}: dtype {h.dtype}; expected one of {', '.join(NUMPY)}")
        found = Opened(str(path))
        add(found, "", h.shape, dtype, "", partial(Flat, str(path), "", fd, h.offset, h.shape))
        yield found


def _npz(path: Path) -> AbstractContextManager[Opened]:
    from actprobe.files.npz import open_npz

    return open_npz(path)
