"""Headers of `.npy` and `.npz` arrays, read by their grammar: no Python literal is evaluated.

Format: numpy.org, "numpy.lib.format": magic, version, header length, a dict of `descr`,
`fortran_order` and `shape`. Light: plans read the headers of SAEs with it, without NumPy.
"""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits
from actprobe.files.zips import DAMAGED, Member, members

_MAGIC = b"\x93NUMPY"
_ITEM = re.compile(
    r"\s*'(?P<key>descr|fortran_order|shape)'\s*:\s*"
    r"(?:'(?P<descr>[^'\\]{1,40})'|(?P<order>True|False)|\((?P<shape>[\d\sL,-]*)\))\s*(?:,|$)"
)
# A dtype with fields is a list; what follows it is of no interest.
_FIELDS = re.compile(r"\s*\{\s*'descr'\s*:\s*\[")
_NAMES = {
    "b1": "bool", "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32",
    "i4": "int32", "u8": "uint64", "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64",
}  # fmt: skip


class NpyHeader(NamedTuple):
    """What a `.npy` header says. dtype: as written ("<f4"); name: as in `dtypes`, None for one that
    is not read; offset: where the data begin, counted from the header's beginning."""

    shape: tuple[int, ...]
    dtype: str
    name: str | None
    offset: int

    @property
    def stop(self) -> int:
        """Where the data end, of a dtype that is read."""
        return self.offset + math.prod(self.shape) * int(self.dtype[-1])


def read_npy_header(f: IO[bytes], what: str) -> NpyHeader:
    """The header that begins here.

    what: names it in messages. Raises BadInput for what is no header, one of more than
    `limits.NPY_HEADER` bytes, an impossible shape, and Fortran order of a matrix.
    """
    magic = f.read(8)
    if magic[:6] != _MAGIC or magic[6:7] not in (b"\1", b"\2", b"\3"):
        raise BadInput(f"{what}: not a readable .npy header: it begins with {magic!r}")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(f.read(width), "little")
    limits.check(f"{what}: bytes of the .npy header", length, limits.NPY_HEADER)
    text = f.read(length).decode("latin-1").strip()
    if _FIELDS.match(text):
        return NpyHeader((), "with fields", None, 8 + width + length)
    said = _items(text[1:-1]) if text[:1] + text[-1:] == "{}" else {}
    if said.keys() != {"descr", "fortran_order", "shape"}:
        raise BadInput(f"{what}: not a readable .npy header: {text[:80]!r}")
    numbers = [n.strip().rstrip("L") for n in said["shape"].split(",")]
    if any(len(n) > 20 or not re.fullmatch(r"-?\d+", n) for n in numbers if n):
        raise BadInput(f"{what}: an impossible shape ({said['shape'][:60]})")
    shape = tuple(int(n) for n in numbers if n)
    limits.check_shape(what, shape)
    if said["fortran_order"] == "True" and len(shape) > 1:
        raise BadInput(
            f"{what}: in Fortran order; expected C order: save np.ascontiguousarray(x) instead"
        )
    dtype = said["descr"]
    one_byte = dtype[1:] in ("b1", "u1", "i1")
    name = _NAMES.get(dtype[1:]) if dtype[:1] in "<" or one_byte else None
    return NpyHeader(shape, dtype, name, 8 + width + length)


def _items(text: str) -> dict[str, str]:
    """The entries of the header's dict; none when there is anything else in it."""
    said, at = {}, 0
    kinds = {"descr": "descr", "fortran_order": "order", "shape": "shape"}
    while at < len(text) and (m := _ITEM.match(text, at)):
        value = m[kinds[m["key"]]]
        if value is None or m["key"] in said:
            return {}
        said[m["key"]], at = value, m.end()
    return said if not text[at:].strip() else {}


def read_npz_headers(path: str | Path) -> dict[str, tuple[NpyHeader, Member]]:
    """The arrays of an archive by name: what each header says, and where the member lies.

    Raises BadInput for a damaged archive and for headers that do not fit their members.
    """
    path, found = Path(path), {}
    there = members(path, deflated=True, kind="NumPy archive")
    try:
        with zipfile.ZipFile(path) as z:
            for name in (n for n in there if n.endswith(".npy")):
                with z.open(name) as f:
                    h = read_npy_header(f, f"{path}: {name}")
                if h.name and h.stop != there[name].size:
                    size = there[name].size
                    raise BadInput(f"{path}: {name}: {size:,} bytes do not fit {h.shape} {h.dtype}")
                found[name.removesuffix(".npy")] = h, there[name]
    except DAMAGED as e:
        raise bad_file(path, e, "not a NumPy archive, or cut short: ") from None
    return found
