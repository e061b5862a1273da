"""Control vectors in a GGUF container, as llama.cpp and vgel/repeng read and write them.

Format: github.com/ggml-org/ggml, docs/gguf.md, version 3. Everything is little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError

_VERSION, _ALIGNMENT = 3, 32
_UINT32, _STRING = 4, 8  # types of metadata values
_FLOAT32 = 0  # type of a tensor


def write_control_vector(
    path: str | Path, directions: Mapping[int, NDArray[Any]], model_hint: str
) -> Path:
    """Write directions [d] by layer; that of layer L is added to the output of layer L.

    llama.cpp knows no layer 0 there: raises ActprobeError for it, and for no or unequal directions.
    """
    if not directions or min(directions) < 1 or len({v.shape for v in directions.values()}) != 1:
        raise ActprobeError(
            f"{path}: a control vector needs directions of one width at layers 1 and up, found "
            + (", ".join(f"layer {n} {v.shape}" for n, v in directions.items()) or "none")
        )
    metadata = [
        _string("general.architecture") + _typed("controlvector"),
        _string("controlvector.model_hint") + _typed(model_hint),
        _string("controlvector.layer_count") + _typed(len(directions)),
    ]
    data = {f"direction.{n}": np.asarray(directions[n], "<f4") for n in sorted(directions)}
    infos, offset = [], 0
    for name, values in data.items():
        place = struct.pack("<IQIQ", 1, len(values), _FLOAT32, offset)
        infos.append(_string(name) + place)
        offset += _padded(values.nbytes)
    head = b"GGUF" + struct.pack("<IQQ", _VERSION, len(data), len(metadata))
    head += b"".join(metadata + infos)
    with open(path, "wb") as f:
        f.write(head.ljust(_padded(len(head)), b"\0"))
        for values in data.values():
            f.write(values.tobytes().ljust(_padded(values.nbytes), b"\0"))
    return Path(path)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: str | int) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    return struct.pack("<II", _UINT32, value)
