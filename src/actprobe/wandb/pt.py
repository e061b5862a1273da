"""Where the tensors of a `.pt` file lie, read from its pickle without running anything.

`torch.save` writes a zip with a pickle `data.pkl` and one member per storage
(docs.pytorch.org, "Serialized file format for torch.save"). The pickle is read by an unpickler that
knows three names, all standing for functions of this module; no other code can be reached, torch
itself is not imported, and nothing is allocated that the file does not contain.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actprobe.errors import BadInput
from actprobe.wandb.zips import members

_MAX_PICKLE = 1 << 20  # bytes; thousands of tensors. Long lists of tokens go through `tokens.py`
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "IntStorage": "int32",
    "LongStorage": "int64",
}


_MOST = 1 << 63  # no dimension, offset or stride is larger


def is_possible(shape: Sequence[int]) -> bool:
    """True for what a file may call a shape: at most 64 dimensions, none negative or beyond 2^63."""
    return len(shape) <= 64 and all(0 <= n < _MOST for n in shape)


class Stored(NamedTuple):
    """A tensor as the pickle describes it; offset and stride count elements.

    A tuple: a pickle can change the attributes of other objects (BUILD) after they were checked.
    """

    dtype: str
    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored:
    """Stands for `torch._utils._rebuild_tensor_v2`."""
    dtype, key = storage
    if dtype not in _STORAGES.values() or not isinstance(key, str):
        raise pickle.UnpicklingError("a tensor refers to something that is not a storage")
    numbers = [(offset,), tuple(shape), tuple(stride)]
    whole = all(isinstance(n, int) for n in itertools.chain(*numbers))
    if not (whole and all(map(is_possible, numbers)) and len(numbers[1]) == len(numbers[2])):
        raise pickle.UnpicklingError("a tensor has an impossible shape")
    return Stored(dtype, key, offset, numbers[1], numbers[2])


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which is refused")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or dtype not in _STORAGES.values() or not isinstance(key, str):
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return dtype, key


def pickle_member(path: str | Path, found: dict[str, tuple[int, int]]) -> str:
    """Name of the pickle among the members of a `.pt` file; BadInput when it is not one."""
    names = [n for n in found if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(names) != 1:
        raise BadInput(f"{path}: not a file of torch.save (1.6 or later)")
    return names[0]


def stored_tensors(path: str | Path) -> tuple[dict[str, Stored], dict[str, tuple[int, int]]]:
    """The tensors by name (nested dicts and lists joined with "."; a lone tensor is ""), and the
    storages they refer to as (offset in the file, bytes).

    Raises BadInput for anything that is not plain tensors in dicts, lists and tuples.
    """
    found = members(path)
    name = pickle_member(path, found)
    root = name.removesuffix("data.pkl")
    start, size = found[name]
    if size > _MAX_PICKLE:
        raise BadInput(f"{path}: its pickle has {size:,} bytes, expected tensors and little else")
    with open(path, "rb") as f:
        f.seek(start)
        text = f.read(size)
        if f"{root}byteorder" in found:
            f.seek(found[f"{root}byteorder"][0])
            if f.read(6) != b"little":
                raise BadInput(f"{path}: not little-endian")
    try:
        # The memo of the C unpickler grows to the largest index that a crafted pickle names.
        if any(
            isinstance(arg, int) and arg > size
            for op, arg, _ in pickletools.genops(text)
            if "PUT" in op.name
        ):
            raise pickle.UnpicklingError("it names a memo entry out of range")
        tensors = dict(_flat(_Unpickler(io.BytesIO(text)).load(), ""))
    except Exception as e:  # a crafted pickle can make the unpickler raise anything
        raise BadInput(f"{path}: refused to read its pickle: {e}") from None
    prefix = f"{root}data/"
    storages = {n.removeprefix(prefix): at for n, at in found.items() if n.startswith(prefix)}
    return tensors, storages


def _flat(node: Any, name: str) -> Iterator[tuple[str, Stored]]:
    if isinstance(node, Stored):
        yield name, node
    elif isinstance(node, dict):
        for k, v in node.items():
            yield from _flat(v, f"{name}.{k}" if name else str(k))
    elif isinstance(node, (list, tuple)):
        for i, v in enumerate(node):
            yield from _flat(v, f"{name}.{i}" if name else str(i))
