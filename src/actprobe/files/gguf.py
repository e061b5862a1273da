"""The header of a GGUF file: plain values and the table of tensors, without the tensors.

Format: ggml, "GGUF": magic, version, two counts, key-value pairs, a table of name, dimensions (the
fastest first), type and offset of each tensor; the tensors begin at the next multiple of
`general.alignment`. The project reads headers itself because a plan has neither numpy nor the seconds
that the `gguf` package needs for a vocabulary, and because that package believes what a header says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from actprobe.base.errors import BadInput
from actprobe.files import limits
from actprobe.files.safetensors import SupportsRead

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Number -> name, elements of a block, bytes of a block (`gguf.GGML_QUANT_SIZES`).
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_DIMENSIONS = 4
_CHUNK = 1 << 20
_PAIR, _ENTRY = 13, 24  # least bytes of a key-value pair, and of an entry of the table


class Array(NamedTuple):
    """An array among the values: its length; values is None where they were passed over."""

    length: int
    values: list[Any] | None


class Tensor(NamedTuple):
    """One tensor: type as in `TYPES`, shape with the slowest dimension first, place of its bytes."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Header:
    """What a GGUF file says of itself. size: bytes that it has."""

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    size: int

    def get(self, key: str, default: Any = None) -> Any:
        """A value; an array's values as a list."""
        found = self.values.get(key, default)
        return found.values if isinstance(found, Array) else found

    def count(self, key: str) -> int | None:
        """The length of an array, None where there is none."""
        found = self.values.get(key)
        return found.length if isinstance(found, Array) else None


def read_header(f: SupportsRead, size: int, what: str, arrays: Collection[str] = ()) -> Header:
    """The header of a file of `size` bytes that is read from its beginning.

    what: names it in messages; arrays: keys of long arrays that are kept, `limits.TOLD` values at
    most of the others. Everything is checked before it is used: counts against the bytes that there
    are, each tensor's place against its shape, the file's end and the other tensors. Raises BadInput.
    """
    try:
        return _Reader(f, size, what).header(frozenset(arrays))
    except (struct.error, UnicodeDecodeError) as e:
        raise BadInput(f"{what}: damaged GGUF header: {e}") from None


class _Reader:
    """Reads a header, with `at` the place of the next byte."""

    def __init__(self, f: SupportsRead, size: int, what: str):
        self.f, self.size, self.what = f, size, what
        self.at = 0
        self._buffer, self._begin = b"", 0

    def header(self, arrays: Collection[str]) -> Header:
        n_tensors, n_values = self._counts()
        values: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._string(limits.GGUF_KEY)
            if key in values:
                self._refuse(f"its header holds {key!r} twice")
            values[key] = self._value(key, self._number("<I"), key in arrays)
        table = [self._entry() for _ in range(n_tensors)]
        tensors = self._placed(table, _alignment(values, self.what))
        return Header(values, tensors, self.size)

    def _counts(self) -> tuple[int, int]:
        if self.size < 24 or (begins := self._take(4)) != MAGIC:
            found = f"begins with {begins!r}" if self.size >= 24 else f"has {self.size} bytes"
            self._refuse(f"it is no GGUF file: it {found}")
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            said = "in big-endian byte order" if swapped else f"version {version}"
            self._refuse(f"GGUF {said}; expected version 2 or 3 in little-endian order")
        n_tensors, n_values = self._number("<Q"), self._number("<Q")
        limits.check(f"{self.what}: tensors in the GGUF header", n_tensors, limits.TENSORS)
        limits.check(f"{self.what}: values in the GGUF header", n_values, limits.GGUF_VALUES)
        self._room(n_tensors * _ENTRY + n_values * _PAIR)
        return n_tensors, n_values

    def _value(self, key: str, kind: int, keep: bool) -> Any:
        if kind in _SCALARS:
            return self._number("<" + _SCALARS[kind])
        if kind == _STRING:
            return self._string(limits.GGUF_STRING)
        if kind != _ARRAY:
            self._refuse(f"{key} has type {kind}, which GGUF does not have")
        of, count = self._number("<I"), self._number("<Q")
        limits.check(f"{self.what}: values of {key}", count, limits.GGUF_ARRAY)
        if of in _SCALARS:
            width = struct.calcsize(_SCALARS[of])
            self._room(count * width)
            if keep or count <= limits.TOLD:
                return Array(
                    count, list(struct.unpack(f"<{count}{_SCALARS[of]}", self._take(count * width)))
                )
            self._skip(count * width)
        elif of == _STRING:
            self._room(8 * count)
            if keep or count <= limits.TOLD:
                return Array(count, [self._string(limits.GGUF_STRING) for _ in range(count)])
            self._skip_strings(count)
        else:
            self._refuse(f"{key} is an array of type {of}, which is not read")
        return Array(count, None)

    def _entry(self) -> tuple[str, str, tuple[int, ...], int, int]:
        """Name, type, shape, offset and bytes of a tensor."""
        name = self._string(limits.NAME)
        n = self._number("<I")
        if not 1 <= n <= _DIMENSIONS:
            self._refuse(f"tensor {name!r} has {n} dimensions, expected 1 to {_DIMENSIONS}")
        shape = struct.unpack(f"<{n}Q", self._take(8 * n))[::-1]
        number, offset = struct.unpack("<IQ", self._take(12))
        if number not in TYPES:
            known = ", ".join(t for t, _, _ in TYPES.values())
            self._refuse(f"tensor {name!r} has type {number}; expected one of {known}")
        kind, elements, width = TYPES[number]
        if 0 in shape or shape[-1] % elements:
            self._refuse(f"tensor {name!r} {shape} {kind}: rows of {elements} numbers are expected")
        return name, kind, shape, offset, math.prod(shape) // elements * width

    def _placed(self, table: list[tuple[str, str, tuple[int, ...], int, int]],
                alignment: int) -> dict[str, Tensor]:  # fmt: skip
        """The tensors by name, each in a place of its own inside the file."""
        base = -(-self.at // alignment) * alignment
        found: dict[str, Tensor] = {}
        for name, kind, shape, offset, n in table:
            if name in found:
                self._refuse(f"two tensors are called {name!r}")
            if offset % alignment:
                self._refuse(f"tensor {name!r} begins at {offset}, no multiple of {alignment}")
            found[name] = Tensor(kind, shape, base + offset, base + offset + n)
        end = base
        for name, t in sorted(found.items(), key=lambda item: item[1].start):
            if t.start < end:
                self._refuse(f"tensor {name!r} begins inside another one")
            end = t.stop
            if end > self.size:
                self._refuse(
                    f"cut short, or its header lies: tensor {name!r} {t.shape} {t.kind} would end at "
                    f"byte {end:,}, and there are {self.size:,}"
                )
        if self.size - end >= max(alignment, limits.GGUF_PADDING):
            self._refuse(f"{self.size - end:,} bytes behind its last tensor belong to none")
        return found

    def _string(self, most: int) -> str:
        n = self._number("<Q")
        limits.check(f"{self.what}: characters of a name or value of the GGUF header", n, most)
        return self._take(n).decode("utf-8")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _room(self, n: int) -> None:
        if self.at + n > self.size:
            self._refuse(
                f"cut short, or its header lies: it names {n:,} bytes at byte {self.at:,} of "
                f"{self.size:,}"
            )

    def _take(self, n: int) -> bytes:
        self._room(n)
        low = self.at - self._begin
        if low + n > len(self._buffer):
            self._fill(n)
            low = 0
        self.at += n
        return self._buffer[low : low + n]

    def _fill(self, n: int) -> None:
        """Have n bytes from `at` on in the buffer."""
        limits.check(f"{self.what}: bytes of the GGUF header", self.at + n, limits.GGUF_HEADER)
        left = [self._buffer[self.at - self._begin :]]
        have = len(left[0])
        while have < n:
            piece = self.f.read(max(_CHUNK, n - have))
            if not piece:
                raise BadInput(f"{self.what}: it ends at byte {self.at + have:,}, in its header")
            left.append(piece)
            have += len(piece)
        self._buffer, self._begin = b"".join(left), self.at

    def _skip(self, n: int) -> None:
        while n:
            step = min(n, _CHUNK)
            self._take(step)
            n -= step

    def _skip_strings(self, count: int) -> None:
        """Pass over strings; a vocabulary has hundreds of thousands."""
        length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            low = self.at - self._begin
            if low + 8 > len(self._buffer):
                self._take(8)
                self.at -= 8
                low = 0
            (n,) = length(self._buffer, low)
            if low + 8 + n <= len(self._buffer):
                self.at += 8 + n
            else:
                limits.check(
                    f"{self.what}: characters of a name or value of the GGUF header",
                    n,
                    limits.GGUF_STRING,
                )
                self.at += 8
                self._skip(n)

    def _refuse(self, reason: str) -> Any:
        raise BadInput(f"{self.what}: {reason}")


def _alignment(values: Mapping[str, Any], what: str) -> int:
    found = values.get("general.alignment", 32)
    if not isinstance(found, int) or not 0 < found <= limits.GGUF_PADDING or found & (found - 1):
        raise BadInput(f"{what}: general.alignment is {found!r}; expected a power of 2")
    return found


def join(headers: Iterable[Header], whats: Iterable[str]) -> list[Header]:
    """The headers of a model that was split into several GGUF files, in their order, checked.

    Each file says which one it is (`split.no`, from 0) and how many there are. Raises BadInput for
    files out of order, missing, or of several models.
    """
    found, names = list(headers), list(whats)
    count, total = found[0].get("split.count"), found[0].get("split.tensors.count")
    for n, (h, what) in enumerate(zip(found, names, strict=True)):
        if h.get("split.count") != count or h.get("split.tensors.count") != total:
            raise BadInput(f"{what}: not of the same model as {names[0]}")
        if h.get("split.no") != n:
            raise BadInput(
                f"{what} is file {_ordinal(h)} of {count}, and stands at place {n + 1}: give the files "
                "in their order"
            )
    if count != len(found):
        raise BadInput(f"{names[0]} is one of {count} files, and {len(found)} are given")
    tensors = [name for h in found for name in h.tensors]
    if len(set(tensors)) != len(tensors) or total not in (None, len(tensors)):
        raise BadInput(f"{names[0]}: {len(set(tensors))} tensors in all files, expected {total}")
    return found


def _ordinal(h: Header) -> str:
    n = h.get("split.no")
    return str(n + 1) if isinstance(n, int) else "of unknown number"
