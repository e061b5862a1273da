"""Numeric datasets of an HDF5 file; nothing may lead out of the file or back."""

from __future__ import annotations

import errno
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits
from actprobe.files.arrays import Opened, add
from actprobe.files.dtypes import NUMPY, name_of

_GZIP = h5py.h5z.FILTER_DEFLATE
_PIECE = 1 << 22  # bytes unpacked at a time


@dataclass(frozen=True)
class _Hdf5:
    """A dataset of an open HDF5 file; deflated: its chunks are compressed by gzip."""

    dataset: Any
    deflated: bool
    dtype: str
    _unpacked: set[tuple[int, ...]] = field(
        default_factory=set, repr=False
    )  # chunks found harmless

    @property
    def shape(self) -> tuple[int, ...]:
        return self.dataset.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        try:
            if self.deflated:
                self._check_chunks(start, stop)
            return self.dataset[start:stop].astype(NUMPY[self.dtype], copy=False)
        except (OSError, RuntimeError, ValueError, zlib.error) as e:
            raise bad_file(self.dataset.file.filename, e, f"{self.dataset.name}: ") from None

    def _check_chunks(self, start: int, stop: int) -> None:
        """HDF5 unpacks a chunk to whatever it holds, before it compares that with its shape."""
        d = self.dataset
        first, *others = (range(0, n, c) for n, c in zip(d.shape, d.chunks, strict=True))
        step = first.step
        for place in product(range(start // step * step, stop, step), *others):
            if place in self._unpacked:
                continue
            if d.id.get_chunk_info_by_coord(place).byte_offset is not None:
                self._check_chunk(*d.id.read_direct_chunk(place))
            self._unpacked.add(place)

    def _check_chunk(self, mask: int, packed: bytes) -> None:
        skipped = mask >> _filters(self.dataset).index(_GZIP) & 1
        most = math.prod(self.dataset.chunks) * self.dataset.dtype.itemsize + 4  # and a checksum
        stream = zlib.decompressobj()
        while packed and not skipped and not stream.eof:
            most -= len(stream.decompress(packed, min(_PIECE, most + 1)))
            packed = stream.unconsumed_tail
            if most < 0:
                raise BadInput(
                    f"{self.dataset.file.filename}: {self.dataset.name}: a chunk unpacks to more than "
                    f"its {self.dataset.chunks} {self.dataset.dtype}"
                )


def _filters(node: Any) -> list[int]:
    """What a dataset's chunks go through when they are written, in order."""
    how = node.id.get_create_plist()
    return [how.get_filter(i)[0] for i in range(how.get_nfilters())]


@contextmanager
def open_hdf5(path: Path) -> Iterator[Opened]:
    """The arrays of an open file; see `arrays.open_arrays`."""
    try:
        f = h5py.File(path, "r", locking=False)
    except OSError as e:
        if e.errno not in (None, errno.EINVAL):  # not the file's fault, as with EMFILE
            raise
        raise BadInput(f"{path}: cannot be read as HDF5: {e}") from None
    with f:
        found = Opened(str(path))
        try:
            _visit(path, f, "", found, set(), 0)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as e:
            raise bad_file(path, e, "damaged HDF5: ") from None
        yield found


def _visit(path: Path, group: Any, prefix: str, found: Opened, seen: set[Any], depth: int) -> None:
    """Collect the numeric datasets below a group."""
    limits.check(f"{path}: groups inside each other", depth, limits.DEPTH)
    limits.check(f"{path}: entries of a group", len(group), limits.TENSORS)
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise BadInput(f"{path}: {name!r} is a link to somewhere else")
        node = group[key]
        address = h5py.h5o.get_info(node.id).addr
        if address in seen:
            raise BadInput(f"{path}: {name!r} is a second name of something else")
        seen.add(address)
        limits.check(f"{path}: groups and datasets", len(seen), limits.TENSORS)
        if isinstance(node, h5py.Group):
            _visit(path, node, f"{name}/", found, seen, depth + 1)
        elif isinstance(node, h5py.Dataset):
            _dataset(path, node, name, found)
        else:
            found.ignore(name, "a type")


def _dataset(path: Path, node: Any, name: str, found: Opened) -> None:
    if node.is_virtual or node.external:
        raise BadInput(f"{path}: dataset {name!r} keeps its data in other files")
    if node.shape is None:
        found.ignore(name, "empty")
        return
    limits.check_shape(f"{path}: dataset {name!r}", node.shape)
    dtype = _dtype(node)
    if dtype and node.ndim:
        if node.nbytes > node.id.get_storage_size() * (limits.PACKED if node.chunks else 1):
            raise BadInput(f"{path}: dataset {name!r} {node.shape} has no data to fill it")
        filters = _filters(node)
        gzip = [f for f in filters if f != h5py.h5z.FILTER_FLETCHER32]
        if _GZIP in gzip and gzip.index(_GZIP) < len(gzip) - 1:
            raise BadInput(f"{path}: dataset {name!r} is compressed twice")
        if filters and math.prod(node.chunks) * node.dtype.itemsize > limits.UNPACKED:
            raise BadInput(
                f"{path}: dataset {name!r} is compressed in chunks {node.chunks}, "
                f"over {limits.UNPACKED:,} bytes each"
            )
    deflated = bool(node.chunks) and _GZIP in _filters(node)
    add(found, name, node.shape, dtype, f"dtype {node.dtype}", partial(_Hdf5, node, deflated))


def _dtype(node: Any) -> str | None:
    """uint16 with the attribute dtype="bfloat16" holds bfloat16 bits, as in our own artefacts."""
    if node.dtype == np.uint16 and node.attrs.get("dtype") == "bfloat16":
        return "bfloat16"
    return name_of(node.dtype.newbyteorder("="))
