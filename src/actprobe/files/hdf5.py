"""Numeric datasets of an HDF5 file; nothing may lead out of the file or back."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from actprobe.errors import BadInput, bad_file
from actprobe.files import limits
from actprobe.files.arrays import Opened, add
from actprobe.files.dtypes import NUMPY, name_of


@dataclass(frozen=True)
class _Hdf5:
    """A dataset of an open HDF5 file."""

    dataset: Any
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.dataset.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        try:
            return self.dataset[start:stop].astype(NUMPY[self.dtype], copy=False)
        except OSError as e:
            raise bad_file(self.dataset.file.filename, e, f"{self.dataset.name}: ") from None


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
        packed = node.id.get_create_plist().get_nfilters()
        if packed and math.prod(node.chunks) * node.dtype.itemsize > limits.UNPACKED:
            raise BadInput(
                f"{path}: dataset {name!r} is compressed in chunks {node.chunks}, "
                f"over {limits.UNPACKED:,} bytes each"
            )
    add(found, name, node.shape, dtype, f"dtype {node.dtype}", lambda d: _Hdf5(node, d))


def _dtype(node: Any) -> str | None:
    """uint16 with the attribute dtype="bfloat16" holds bfloat16 bits, as in our own artefacts."""
    if node.dtype == np.uint16 and node.attrs.get("dtype") == "bfloat16":
        return "bfloat16"
    return name_of(node.dtype.newbyteorder("="))
