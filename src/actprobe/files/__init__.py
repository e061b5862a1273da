"""Files of other people: arrays of safetensors, `.pt`, `.npz`, `.npy` and HDF5, none of which runs.

`open_arrays` is the one way to read them; `read_header` and `read_npy_header` are light, for plans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.files.names import check_name

if TYPE_CHECKING:
    from actprobe.files.arrays import UNKNOWN, Array, Opened, open_arrays
    from actprobe.files.dtypes import as_float32, check_finite, is_float, is_integer
    from actprobe.files.npz import read_strings

_LAZY = {
    "UNKNOWN": "arrays",
    "Array": "arrays",
    "Opened": "arrays",
    "as_float32": "dtypes",
    "check_finite": "dtypes",
    "is_float": "dtypes",
    "is_integer": "dtypes",
    "open_arrays": "arrays",
    "read_strings": "npz",
}

__all__ = [
    "UNKNOWN",
    "Array",
    "Opened",
    "as_float32",
    "check_finite",
    "check_name",
    "is_float",
    "is_integer",
    "open_arrays",
    "read_strings",
]

__getattr__ = lazy(__name__, _LAZY)
