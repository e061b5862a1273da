"""Tensors of a `.pt` file: `torch.load(weights_only=True, mmap=True)`, within limits.

torch runs no code of the file and maps the tensors instead of reading them. Before it is asked, the
archive and the pickle in it are looked through (`zips`, `pickles`); afterwards each container is
visited once. NumPy arrays and scalars beside the tensors, which torch refuses, are described by
stand-ins (`numpy_pickles`). The old format (torch before 1.6) has no map: it is read as a whole, up to
`limits.IN_MEMORY` bytes.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits
from actprobe.files.arrays import Opened, add
from actprobe.files.dtypes import BITS, NUMPY, name_of
from actprobe.files.numpy_pickles import STAND_INS, Foreign, NumpyArray
from actprobe.files.pickles import check_pickle
from actprobe.files.zips import members, pickle_member

_ZIP, _OLD = b"PK\x03\x04", b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the old one after PROTO
_MAPPED = 32 << 20  # bytes read through one map: its pages count as memory until it is made anew
_ERRNO = re.compile(r"[A-Z][a-z ]+ \((\d+)\)$")
_PLAIN = (str, bytes, int, float, bool, complex, type(None))


@contextmanager
def open_pt(path: Path) -> Iterator[Opened]:
    """The tensors of an open file; see `arrays.open_arrays`."""
    source = _Source(path)
    found = Opened(str(path))
    try:
        # No tensor may stay in a variable here: it would keep the first map in memory.
        described = {
            name: _described(value, f"{path}: tensor {name!r}")
            for name, value in source.values(found).items()
        }
        found.numbers.update(source.numbers())
        for name, (shape, dtype, foreign) in described.items():
            add(found, name, shape, dtype, foreign, partial(_Tensor, source, name, shape))
        yield found
    finally:
        source.close()


class _Source:
    """A file and what torch made of it, made anew when much was read through the map."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as f:
            head = f.read(16)
        self._mapped = head.startswith(_ZIP)
        if not self._mapped and head[2:15] != _OLD:
            raise BadInput(
                f"{path}: not a file of torch.save: neither a zip archive nor the format before "
                f"torch 1.6 ({head[:4]!r})"
            )
        self._size = path.stat().st_size
        pickled = self._check_zip() if self._mapped else self._check_old()
        self._budget = max(_MAPPED, 64 * pickled)  # making it anew unpickles it again
        self._read = 0
        self._values: dict[str, Any] | None = None

    def _check_zip(self) -> int:
        """Look through the archive; returns the size of its pickle."""
        found = members(self.path)
        name = pickle_member(self.path, found)
        start, size, *_ = found[name]
        limits.check(f"{self.path}: bytes of the pickle beside the tensors", size, limits.PICKLE)
        with open(self.path, "rb") as f:
            f.seek(start)
            check_pickle(str(self.path), f.read(size))
            order = found.get(f"{name.removesuffix('data.pkl')}byteorder")
            if order is not None:
                f.seek(order.start)
                if f.read(min(order.size, 6)) == b"big":  # its numbers are turned in memory
                    self._mapped = False
                    self._check_memory()
        return size

    def _check_old(self) -> int:
        self._check_memory()
        with open(self.path, "rb") as f:
            for _ in range(5):  # magic number, protocol, system, the content, storage keys
                check_pickle(str(self.path), f)
        return 0

    def _check_memory(self) -> None:
        what = f"{self.path}: bytes of a file that cannot be mapped (save it again with torch.save)"
        limits.check(what, self._size, limits.IN_MEMORY)

    def values(self, found: Opened | None = None) -> dict[str, Any]:
        """Tensors and NumPy arrays by name."""
        if self._values is None:
            self._values = _collect(self._load(), found or Opened(str(self.path)))
            tensors = [v for v in self._values.values() if _holds_numbers(v)]
            kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
            if sum(kept.values()) > self._size:
                raise BadInput(f"{self.path}: its tensors have more bytes than the file")
        return self._values

    def numbers(self) -> dict[str, float]:
        """Tensors of a single float, by name; at most `limits.TOLD`."""
        single = {n: v for n, v in self.values().items() if not v.ndim and _holds_numbers(v)}
        floats = [(n, v) for n, v in single.items() if v.is_floating_point()]
        return {n: v.item() for n, v in floats[: limits.TOLD]}

    def _load(self) -> Any:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(STAND_INS):
                warnings.simplefilter("ignore")
                return torch.load(
                    self.path, map_location="cpu", weights_only=True, mmap=self._mapped
                )
        except OSError as e:
            raise bad_file(self.path, e) from None
        except Exception as e:  # torch raises anything for a file that was altered
            if m := _ERRNO.search(str(e)):  # and RuntimeError for what the machine lacks
                raise bad_file(self.path, OSError(int(m[1]), m[0])) from None
            raise BadInput(f"{self.path}: refused to read its pickle: {_reason(e)}") from None

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a tensor or array, copied."""
        value = self.values()[name][start:stop]
        if isinstance(value, torch.Tensor):
            kind = str(value.dtype).removeprefix("torch.")
            value = value.detach()
            if kind in BITS:
                value = value.view(torch.uint16 if kind == "bfloat16" else torch.uint8)
            out = np.array(value.numpy(), order="C")
        else:
            out = np.array(value, value.dtype.newbyteorder("="), order="C")
        self._read += out.nbytes
        if self._mapped and self._read > self._budget:
            self.close()
        return out

    def close(self) -> None:
        """Give the map back; it is made anew when something is read."""
        self._values, self._read = None, 0


@dataclass(frozen=True)
class _Tensor:
    """One array of a `.pt` file."""

    source: _Source
    name: str
    shape: tuple[int, ...]
    dtype: str

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.source.rows(self.name, start, stop)


def _described(value: Any, what: str) -> tuple[tuple[int, ...], str | None, str]:
    """Shape, dtype name (None when it is not read) and what it is, of a tensor or array."""
    if isinstance(value, torch.Tensor) and value.is_nested:
        return (0,), None, "a nested tensor"
    shape = tuple(value.shape)
    limits.check_shape(what, shape)
    if not isinstance(value, torch.Tensor):
        return shape, name_of(value.dtype.newbyteorder("=")), f"dtype {value.dtype}"
    kind = str(value.dtype).removeprefix("torch.")
    if not _holds_numbers(value) or kind not in NUMPY:
        layout = str(value.layout).removeprefix("torch.")
        return shape, None, f"a {layout} tensor of {kind} on {value.device}"
    more = math.prod(shape) * value.element_size() - value.untyped_storage().nbytes()
    limits.check(f"{what} {shape}: bytes that the file does not hold", more, limits.REPEATED)
    return shape, kind, kind


def _holds_numbers(value: Any) -> bool:
    """True for a plain tensor, whose numbers lie one by one in a storage of the file."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_nested or value.is_quantized or value.is_neg())
    )


def _collect(root: Any, found: Opened) -> dict[str, Any]:
    """Tensors and arrays by the names of the containers around them, joined with "."."""
    tensors: dict[str, Any] = {}
    seen: dict[int, Any] = {}  # containers by id, kept alive
    waiting = [(root, "", 0)]
    while waiting:
        node, name, depth = waiting.pop()
        limits.check(f"{found.file}: containers inside each other", depth, limits.DEPTH)
        if isinstance(node, NumpyArray):
            node = node.array(f"{found.file}: {name}")
        if isinstance(node, torch.Tensor) or (isinstance(node, np.ndarray) and node.ndim):
            if name in tensors:
                raise BadInput(f"{found.file}: two tensors are called {name!r}")
            tensors[name] = node
            limits.check(f"{found.file}: tensors", len(tensors), limits.TENSORS)
        elif type(node) in (list, tuple) or isinstance(node, dict):
            if id(node) in seen:
                found.ignore(name, "the same as another entry")
                continue
            seen[id(node)] = node
            waiting += [(v, n, depth + 1) for n, v in reversed(_entries(node, name, found))]
        elif isinstance(node, _PLAIN) and name and len(found.metadata) < limits.TOLD:
            found.metadata[name] = node[:1000] if isinstance(node, (str, bytes)) else node
        else:
            foreign = isinstance(node, Foreign)
            found.ignore(name, "an array of no numbers" if foreign else type(node).__name__)
    return tensors


def _entries(node: Any, name: str, found: Opened) -> list[tuple[str, Any]]:
    """(name, value) of what is in a container; none of a list of plain values."""
    if not isinstance(node, dict):
        kinds = {type(v) for v in node}
        if len(node) > 1 and kinds.issubset(_PLAIN):
            words = " and ".join(sorted(k.__name__ for k in kinds))
            found.ignore(name, f"{type(node).__name__} of {len(node):,} {words}")
            return []
        node = dict(enumerate(node))
    entries = []
    for key, value in node.items():
        if not isinstance(key, (str, int)):
            found.ignore(name, f"a key of type {type(key).__name__}")
            continue
        inner = f"{name}.{key}" if name else str(key)
        if len(inner) > limits.NAME:
            found.ignore(inner[:80], f"a name of {len(inner):,} characters")
        else:
            entries.append((inner, value))
    return entries


def _reason(error: Exception) -> str:
    """What torch says, without its advice to run the file's code."""
    text = str(error)
    if m := re.search(r"(?:unsupported|Unsupported) (?:global: )?GLOBAL (\S+)", text):
        return (
            f"it wants {m[1]}, which is refused; expected tensors, numbers and strings in dicts, "
            "lists and tuples"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.search(r"weights_only|torch\.load|trust", line)]
    said = " ".join(kept or [type(error).__name__])
    return said.partition(" This is an internal")[0][:300]
