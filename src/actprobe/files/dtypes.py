"""Dtypes by torch's names, in NumPy's, safetensors' and HDF5's words.

What NumPy does not know comes as its bits: bfloat16 as uint16, float8 as uint8.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput

NUMPY: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "uint16": np.dtype("<u2"),
    "int16": np.dtype("<i2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "uint64": np.dtype("<u8"),
    "int64": np.dtype("<i8"),
    "float8_e4m3fn": np.dtype("u1"),
    "float8_e5m2": np.dtype("u1"),
    "float8_e4m3fnuz": np.dtype("u1"),
    "float8_e5m2fnuz": np.dtype("u1"),
    "bfloat16": np.dtype("<u2"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
BITS = {name for name in NUMPY if name.startswith("float8")} | {"bfloat16"}
SAFETENSORS = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}
# Exponent bits and bias (Micikevicius et al. 2022; the FNUZ forms: onnx.ai, "Float stored in 8 bits").
_FLOAT8 = {
    "float8_e4m3fn": (4, 7),
    "float8_e5m2": (5, 15),
    "float8_e4m3fnuz": (4, 8),
    "float8_e5m2fnuz": (5, 16),
}


def name_of(dtype: np.dtype[Any]) -> str | None:
    """The name of a NumPy dtype in native byte order; None for one that is not read."""
    return next((n for n, d in NUMPY.items() if d == dtype and n not in BITS), None)


def is_float(name: str) -> bool:
    """True for floating point numbers, whole or as bits."""
    return "float" in name


def is_integer(name: str) -> bool:
    """True for integers; bool is none."""
    return name.startswith(("int", "uint"))


def as_float32(block: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """float32 values of an array with this dtype name.

    Exact for all floats but float64, which is rounded and becomes infinite beyond float32.
    """
    if dtype == "bfloat16":
        return (block.astype(np.uint32) << 16).view(np.float32)
    if dtype in _FLOAT8:
        return _float8(dtype)[block]
    with np.errstate(over="ignore"):
        return block.astype(np.float32, copy=False)


@cache
def _float8(dtype: str) -> NDArray[np.float32]:
    """The value of each of the 256 bytes."""
    bits, bias = _FLOAT8[dtype]
    low = 7 - bits
    code = np.arange(256)
    exponent, mantissa = (code >> low) & ((1 << bits) - 1), code & ((1 << low) - 1)
    fraction = np.where(exponent == 0, 0, 1) + mantissa / (1 << low)
    value = np.ldexp(fraction, np.maximum(exponent, 1) - bias)
    value = np.where(code & 128, -value, value)
    if dtype.endswith("uz"):  # one zero, no infinity
        value[128] = np.nan
    elif dtype == "float8_e5m2":  # as IEEE 754
        top = exponent == (1 << bits) - 1
        value[top] = np.where(mantissa[top] == 0, np.copysign(np.inf, value[top]), np.nan)
    else:  # no infinity: all ones is no number
        value[(code & 127) == 127] = np.nan
    return value.astype(np.float32)


def check_finite(block: NDArray[Any], file: str, first: int) -> None:
    """Raise BadInput naming the file and the row when a value of [n, d] is not finite."""
    if not np.isfinite(block).all():
        row = first + int((~np.isfinite(block)).any(axis=1).argmax())
        raise BadInput(f"{file}: row {row} holds NaN, infinity or a number beyond float32")
