"""Where the tensors of a weights file lie, found from its headers alone.

Light: used while the plan is made. safetensors and uncompressed NumPy archives are read in place;
what cannot be (deflated archives, PyTorch pickles) is converted once (`convert.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actprobe.files.npy import read_npz_headers
from actprobe.files.safetensors import read_header

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMPY = {"<f8": "F64", "<f4": "F32", "<f2": "F16"}


@dataclass(frozen=True)
class Tensor:
    """A C-ordered little-endian tensor in a file; dtype is one of `SIZES`, or foreign.

    offset is -1 for a member of an archive that cannot be read in place.
    """

    file: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


def tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .npz or .h5 file by name. Raises BadInput naming the file."""
    readers = {".npz": _npz, ".h5": _hdf5}
    return readers.get(Path(path).suffix, _safetensors)(Path(path))


def _hdf5(path: Path) -> dict[str, Tensor]:
    """The contiguous float arrays of an SAE that was converted or trained here."""
    import h5py

    with h5py.File(path, "r", locking=False) as f:
        return {
            name: Tensor(str(path), d.id.get_offset() or -1, d.shape, _NUMPY[d.dtype.str])
            for name, d in f.items()
            if d.dtype.kind == "f"
        }


def _safetensors(path: Path) -> dict[str, Tensor]:
    found = read_header(path).tensors
    return {name: Tensor(str(path), t.start, t.shape, t.dtype) for name, t in found.items()}


def _npz(path: Path) -> dict[str, Tensor]:
    """`numpy.savez` stores members uncompressed: the data follow the local zip and npy headers."""
    return {
        name: Tensor(
            str(path),
            member.start + header.offset if member.stored else -1,
            header.shape,
            _NUMPY.get(header.dtype, header.dtype),
        )
        for name, (header, member) in read_npz_headers(path).items()
    }


def sliceable(found: Mapping[str, Tensor]) -> bool:
    """True when every tensor can be read in place."""
    return all(t.offset >= 0 for t in found.values())
