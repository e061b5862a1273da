"""Stand-ins for names in pickles: NumPy's, which make no array before it is checked, and words.

torch refuses NumPy's own functions, which would allocate whatever a file asks for, and every class of
other packages; an enumeration is known to stand for a word.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.files import limits


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, kind: Any = None, *_: Any):
        self.kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else str(order)

    def dtype(self) -> np.dtype[Any] | None:
        """The dtype, None for one of no plain numbers."""
        if not re.fullmatch(r"[biuf][1248]", self.kind) or self.order not in "<>|=":
            return None
        return np.dtype(f"{self.order}{self.kind}")


class NumpyArray:
    """Stands for `numpy.ndarray`, whose bytes lie in the pickle."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, what: str) -> Any:
        """The array, or the name of a dtype that is not read."""
        try:
            _, shape, kind, fortran, raw = self.state
            shape = tuple(int(n) for n in shape)
            limits.check_shape(what, shape)
            dtype = kind.dtype()
            if dtype is None:
                return Foreign()
            flat = np.frombuffer(raw, dtype)
            return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
        except BadInput:
            raise
        except Exception as e:
            raise BadInput(f"{what}: a damaged NumPy array: {e}") from None


class Foreign:
    """An array of objects, strings or records."""


def _reconstruct(*_: Any) -> NumpyArray:
    return NumpyArray()


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    kind = dtype.dtype()
    return None if kind is None or not raw else np.frombuffer(raw, kind)[0].item()


class _Word(str):
    """Stands for a member of an enumeration whose values are words."""


STAND_INS: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (NumpyArray, "numpy.ndarray"),
    (_Word, "deception.detectors.utils.types.ProbeArchitecture"),  # of lie-detectors
]
for _room in ("numpy.core.multiarray", "numpy._core.multiarray"):
    STAND_INS += [(_reconstruct, f"{_room}._reconstruct"), (_scalar, f"{_room}.scalar")]
