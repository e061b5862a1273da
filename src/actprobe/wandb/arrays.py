"""Arrays in `.pt`, `.safetensors`, `.npy` and `.h5` files, read by slices of rows.

A file is opened by its header alone. Before anything is allocated the header must be possible:
known dtype, C order, every byte inside the file, no two arrays over the same bytes. Slices are read
with positioned reads, so that memory holds the slice and nothing else.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actprobe.errors import BadInput, bad_file
from actprobe.safetensors_header import read_header
from actprobe.wandb.pt import is_possible, stored_tensors

NUMPY: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
_SAFETENSORS = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "I32": "int32",
    "I64": "int64",
}
_MAX_PACKED = 1100  # deflate packs no better than this
_MAX_UNPACKED = 1 << 28  # bytes of a compressed HDF5 chunk, which is unpacked as a whole


class Array(Protocol):
    """An array in an open file. dtype is a name of `NUMPY`; bfloat16 comes as its uint16 bits."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), native byte order."""
        ...


@dataclass(frozen=True)
class _Flat:
    """A C-ordered array at a known place of a file."""

    file: str
    descriptor: int
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not is_possible(self.shape):
            raise BadInput(f"{self.file}: an array has an impossible shape")

    @property
    def stop(self) -> int:
        return self.offset + math.prod(self.shape) * NUMPY[self.dtype].itemsize

    def rows(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), NUMPY[self.dtype])
        view, at = out.reshape(-1).view(np.uint8).data, 0
        begin = self.offset + start * math.prod(self.shape[1:]) * out.itemsize
        while at < len(view):
            n = os.preadv(self.descriptor, [view[at:]], begin + at)
            if n == 0:
                raise BadInput(f"{self.file}: ends at byte {begin + at}, in the middle of an array")
            at += n
        return out


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
def open_arrays(path: str | Path, kind: str) -> Iterator[dict[str, Array]]:
    """The arrays of a file by name ("" for the only one of a `.npy` or a lone tensor).

    kind: the file's extension (pt, pth, safetensors, npy, h5, hdf5). Raises BadInput naming the
    file for an unknown kind and for a header that cannot be true.
    """
    path = Path(path)
    if kind in ("h5", "hdf5"):
        with _open_hdf5(path) as found:
            yield found
        return
    readers = {"pt": _pt, "pth": _pt, "safetensors": _safetensors, "npy": _npy}
    if kind not in readers:
        expected = ", ".join([*readers, "h5", "hdf5"])
        raise BadInput(
            f"{path}: cannot read arrays from a .{kind} file; expected one of {expected}"
        )
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        placed = readers[kind](path, descriptor)
        _check_places(path, os.fstat(descriptor).st_size, placed)
        yield dict(placed)
    finally:
        os.close(descriptor)


def _check_places(path: Path, size: int, found: Mapping[str, _Flat]) -> None:
    end = 0
    for name, a in sorted(found.items(), key=lambda item: (item[1].offset, item[1].stop)):
        if a.stop > size:
            raise BadInput(
                f"{path}: array {name!r} {a.shape} {a.dtype} would end at byte {a.stop:,} of a "
                f"file of {size:,} bytes"
            )
        if a.offset < end and a.stop > a.offset:
            raise BadInput(f"{path}: array {name!r} lies over another one")
        end = max(end, a.stop)


def _pt(path: Path, descriptor: int) -> dict[str, _Flat]:
    tensors, storages = stored_tensors(path)
    found = {}
    for name, t in tensors.items():
        if t.storage not in storages:
            raise BadInput(f"{path}: tensor {name!r} has no data")
        start, size = storages[t.storage]
        numel, item = math.prod(t.shape), NUMPY[t.dtype].itemsize
        if numel and not _is_contiguous(t.shape, t.stride):
            raise BadInput(f"{path}: tensor {name!r} {t.shape} is not contiguous ({t.stride})")
        if numel and (t.offset + numel) * item > size:
            raise BadInput(
                f"{path}: tensor {name!r} {t.shape} {t.dtype} needs {numel * item:,} bytes, "
                f"its storage has {size:,}"
            )
        found[name] = _Flat(str(path), descriptor, start + t.offset * item, t.shape, t.dtype)
    return found


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """C order; the stride of a dimension of one element says nothing."""
    step = 1
    for n, s in zip(reversed(shape), reversed(stride), strict=True):
        if n > 1 and s != step:
            return False
        step *= n
    return True


def _safetensors(path: Path, descriptor: int) -> dict[str, _Flat]:
    found = {}
    for name, t in read_header(path).tensors.items():
        if t.dtype not in _SAFETENSORS:
            raise BadInput(
                f"{path}: {name} has dtype {t.dtype}, expected one of {', '.join(_SAFETENSORS)}"
            )
        found[name] = _Flat(str(path), descriptor, t.start, t.shape, _SAFETENSORS[t.dtype])
    return found


def _npy(path: Path, descriptor: int) -> dict[str, _Flat]:
    with open(path, "rb") as f:
        try:
            version = np.lib.format.read_magic(f)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(f)
            offset = f.tell()
        except Exception as e:  # NumPy parses it as a Python literal, which can fail in any way
            raise BadInput(f"{path}: not a readable .npy header: {e}") from None
    if fortran and len(shape) > 1:
        raise BadInput(f"{path}: in Fortran order; expected C order")
    name = _name(dtype)
    if name is None:
        raise BadInput(f"{path}: dtype {dtype}; expected one of {', '.join(NUMPY)}")
    return {"": _Flat(str(path), descriptor, offset, shape, name)}


def _name(dtype: np.dtype) -> str | None:
    return next((n for n, d in NUMPY.items() if d == dtype and n != "bfloat16"), None)


@contextmanager
def _open_hdf5(path: Path) -> Iterator[dict[str, Array]]:
    import h5py

    try:
        f = h5py.File(path, "r", locking=False)
    except OSError as e:
        if e.errno not in (None, errno.EINVAL):  # not the file's fault, as with EMFILE
            raise
        raise BadInput(f"{path}: cannot be read as HDF5: {e}") from None
    with f:
        found: dict[str, Array] = {}
        try:
            _visit(path, f, "", found, set())
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as e:
            raise bad_file(path, e, "damaged HDF5: ") from None
        yield found


def _visit(path: Path, group: Any, prefix: str, found: dict[str, Array], seen: set[Any]) -> None:
    """Collect the numeric datasets below a group; nothing may lead out of the file or back."""
    import h5py

    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise BadInput(f"{path}: {name!r} is a link to somewhere else")
        node = group[key]
        address = h5py.h5o.get_info(node.id).addr
        if address in seen:
            raise BadInput(f"{path}: {name!r} is a second name of something else")
        seen.add(address)
        if isinstance(node, h5py.Group):
            _visit(path, node, f"{name}/", found, seen)
        elif not isinstance(node, h5py.Dataset):  # a committed type
            continue
        elif node.is_virtual or node.external:
            raise BadInput(f"{path}: dataset {name!r} keeps its data in other files")
        elif node.ndim and (dtype := _hdf5_dtype(node)):
            if node.nbytes > node.id.get_storage_size() * (_MAX_PACKED if node.chunks else 1):
                raise BadInput(f"{path}: dataset {name!r} {node.shape} has no data to fill it")
            packed = node.id.get_create_plist().get_nfilters()
            if packed and math.prod(node.chunks) * node.dtype.itemsize > _MAX_UNPACKED:
                raise BadInput(
                    f"{path}: dataset {name!r} is compressed in chunks {node.chunks}, "
                    f"over {_MAX_UNPACKED:,} bytes each"
                )
            found[name] = _Hdf5(node, dtype)


def _hdf5_dtype(node: Any) -> str | None:
    """uint16 with the attribute dtype="bfloat16" holds bfloat16 bits, as in our own artefacts."""
    if node.dtype == np.uint16:
        return "bfloat16" if node.attrs.get("dtype") == "bfloat16" else None
    return _name(node.dtype.newbyteorder("="))
