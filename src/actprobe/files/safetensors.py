"""The header of a safetensors file: names, dtypes, shapes and places of tensors, without the data.

Format: 8 bytes little-endian length n, n bytes of JSON {name: {dtype, shape, data_offsets}}, data.
Offsets count from the end of the JSON. The project reads headers itself because an index of 50,000
files must not open 50,000 memory maps, a plan describes SAEs without an array library, and numpy has
no bfloat16.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}  # some alphas
ITEMSIZE = {name: int(kind[-1]) for name, kind in (FLOATS | INTEGERS).items()}
ITEMSIZE |= {"U64": 8, "U32": 4, "U16": 2, "BOOL": 1, "C64": 8}
ITEMSIZE |= {f"F8_{kind}": 1 for kind in ("E4M3", "E5M2", "E8M0", "E4M3FNUZ", "E5M2FNUZ")}
_SHARED = 1 << 20  # bytes of a header that is kept for the next file with an equal one


class SupportsRead(Protocol):
    """What bytes are read from, one piece after the other."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes."""


class Tensor(NamedTuple):
    """One tensor of a file: start and stop are byte positions in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Header:
    """Tensors by name and the `__metadata__` of a file. Files with equal headers share one."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file; nothing else is read.

    Raises BadInput naming the file and what is wrong with it: not this format, cut short, more than
    `limits` allow, a name twice, tensors that overlap or have a size other than their shape's.
    """
    try:
        with open(path, "rb") as f:
            return header_of(f, os.fstat(f.fileno()).st_size)
    except (OSError, BadInput) as e:
        raise bad_file(path, e) from None


def header_of(f: SupportsRead, size: int) -> Header:
    """`read_header` of a file of `size` bytes that is read from its beginning."""
    if size < 8:
        raise BadInput(f"not a safetensors file: {size} bytes")
    length = int.from_bytes(f.read(8), "little")
    if not 2 <= length <= size - 8:
        raise BadInput(f"not a safetensors file, or cut short: header of {length} bytes in {size}")
    limits.check("bytes of the safetensors header", length, limits.HEADER)
    return (_shared if length <= _SHARED else _parse)(f.read(length), size)


def _parse(text: bytes, size: int) -> Header:
    """The header in these bytes."""
    length = len(text)
    try:
        entries = json.loads(text, object_pairs_hook=_once)
        metadata = dict(entries.pop("__metadata__", None) or {})
        limits.check("tensors in the safetensors header", len(entries), limits.TENSORS)
        tensors = {name: _tensor(entry, 8 + length) for name, entry in entries.items()}
        _check_layout(tensors, 8 + length, size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise BadInput(f"the safetensors header is not readable ({e})") from None
    return Header(tensors, metadata)


_shared = lru_cache(maxsize=64)(_parse)  # most files of a collection have equal headers


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the format forbids a name that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise BadInput(f"the safetensors header holds {twice[: limits.NAME]!r} twice")
    return found


def _tensor(entry: dict[str, Any], base: int) -> Tensor:
    start, stop = entry["data_offsets"]
    shape = tuple(index(n) for n in entry["shape"])
    return Tensor(entry["dtype"], shape, base + index(start), base + index(stop))


def _check_layout(tensors: dict[str, Tensor], base: int, size: int) -> None:
    end = base
    for name, t in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        itemsize = ITEMSIZE.get(t.dtype)
        if itemsize is None:
            raise BadInput(f"{name} has dtype {t.dtype}, expected one of {', '.join(ITEMSIZE)}")
        possible = limits.is_shape(t.shape) and t.start == end
        if not possible or t.stop - t.start != math.prod(t.shape) * itemsize:
            said = f"its shape {str(t.shape)[:80]} and dtype {t.dtype}"
            raise BadInput(f"{name}: bytes {t.start}-{t.stop} do not fit {said}")
        end = t.stop
    if end != size:
        problem = "cut short" if end > size else "overlong"
        raise BadInput(f"{problem}: {size:,} bytes, expected {end:,}")
