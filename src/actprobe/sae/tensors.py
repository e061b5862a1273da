"""Where the tensors of a weights file lie, found from its headers alone.

Light: used while the plan is made. safetensors and uncompressed NumPy archives are read in place;
what cannot be (deflated archives, PyTorch pickles) is converted once (`convert.py`).
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actprobe.errors import BadInput, bad_file
from actprobe.safetensors_header import read_header

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
    try:
        with zipfile.ZipFile(path) as z, open(path, "rb") as f:
            return {
                m.filename.removesuffix(".npy"): _member(path, z, f, m)
                for m in z.infolist()
                if m.filename.endswith(".npy")
            }
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, SyntaxError) as e:
        raise bad_file(path, e, "not a NumPy archive, or cut short: ") from None


def _member(path: Path, z: zipfile.ZipFile, f: object, m: zipfile.ZipInfo) -> Tensor:
    with z.open(m) as npy:
        magic = npy.read(8)
        if magic[:6] != b"\x93NUMPY":
            raise BadInput(f"{path}: member {m.filename} is not an array")
        length_bytes = 2 if magic[6] == 1 else 4
        length = int.from_bytes(npy.read(length_bytes), "little")
        header = ast.literal_eval(npy.read(length).decode("latin1"))
    if header["fortran_order"] and len(header["shape"]) > 1:
        raise BadInput(f"{path}: {m.filename} is in Fortran order; expected C order")
    offset = -1
    if m.compress_type == zipfile.ZIP_STORED:
        f.seek(m.header_offset + 26)  # type: ignore[attr-defined]
        lengths = f.read(4)  # type: ignore[attr-defined]
        names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        offset = m.header_offset + 30 + names + 8 + length_bytes + length
    dtype = _NUMPY.get(header["descr"], header["descr"])
    return Tensor(str(path), offset, tuple(header["shape"]), dtype)


def sliceable(found: Mapping[str, Tensor]) -> bool:
    """True when every tensor can be read in place."""
    return all(t.offset >= 0 for t in found.values())
