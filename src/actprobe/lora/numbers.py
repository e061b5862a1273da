"""Number formats of LoRA files: how their bytes become float32, and how they were rounded."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actprobe.files import dtypes

Floats = NDArray[np.float32]

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
NUMBERS = (*FLOATS, "I64", "I32", "I16", "I8", "U8")  # some alphas are integers
# Bits of the significand and smallest normal number of the formats below float32.
_SMALL = {
    "F16": (11, 2.0**-14),
    "F8_E4M3": (4, 2.0**-6),
    "F8_E4M3FNUZ": (4, 2.0**-7),
    "F8_E5M2": (3, 2.0**-14),
    "F8_E5M2FNUZ": (3, 2.0**-15),
}
_FEWEST = 8  # bits of bfloat16: numbers of fewer bits are taken for chance, not for a format
_MANTISSA = 23


class Rounding(NamedTuple):
    """How a tensor was rounded.

    unit: largest relative error of a number (unit roundoff); least: smallest number that is rounded
    relatively, below it the error is unit · least. float32 unless said otherwise.
    """

    unit: float = 2.0**-24
    least: float = 0.0


def to_float(raw: bytes | memoryview, dtype: str) -> Floats:
    """Tensor bytes as a flat float32 array (float64 is rounded, the smaller formats are exact)."""
    name = dtypes.SAFETENSORS[dtype]
    return dtypes.as_float32(np.frombuffer(raw, dtypes.NUMPY[name]), name)


def roundings(values: Floats, starts: NDArray[Any], dtype: str) -> list[Rounding]:
    """How tensors were rounded that stand one after the other in a flat array.

    starts: first index of each (ascending, not empty). What was rounded to a half format and stored
    as float32 has zeros at the end of every significand: that tells, whatever the file's dtype.
    """
    bits = np.bitwise_or.reduceat(values.view(np.uint32), starts) & ((1 << _MANTISSA) - 1)
    lowest = (bits & -bits.astype(np.int64)).astype(np.float64)  # 0 where no bit is set
    used = 1 + _MANTISSA - np.log2(np.where(lowest > 0, lowest, 2.0**_MANTISSA))
    most, least = _SMALL.get(dtype, (1 + _MANTISSA, 0.0))
    digits = np.clip(used, min(_FEWEST, most), most)
    return [Rounding(u, least) for u in (2.0**-digits).tolist()]
