"""Features as they stand in a file, and as float32 numbers that are right or named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.files import as_float32, is_float, is_integer
from actprobe.files.dtypes import BITS
from actprobe.texts.values import shown

SLICE = 1 << 24  # bytes in memory
EXACT = 1 << 24  # up to here float32 holds every whole number


class Piece(NamedTuple):
    """Some columns of some rows: values [b, w] of a dtype by `files.dtypes`' name; missing: bool
    [b, w], or None where every value is there."""

    values: NDArray[Any]
    dtype: str
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Features:
    """What a file holds: n rows of d features.

    ids: of the rows, each once, or None where they stand in the dataset's order. columns: a name of
    each feature, or None where there are none. left_out: columns that are none. blocks: the rows in
    order, cut into pieces side by side. cells: what stood in a cell (row, feature) that is no number.
    """

    n: int
    d: int
    ids: list[str] | None
    blocks: Callable[[], Iterator[list[Piece]]]
    columns: list[str] | None = None
    left_out: list[str] = field(default_factory=list)
    cells: dict[tuple[int, int], str] = field(default_factory=dict)


class Checked:
    """Turns blocks into float32 and remembers what cannot be one.

    Exact for bool, for whole numbers that float32 holds, and for all floats but float64, which is
    rounded. What is missing, not finite, beyond float32, or a whole number that float32 does not
    hold, is a fault; `finish` raises BadInput for all of one kind with their count and the first.
    """

    def __init__(self, found: Features, file: str):
        self._found, self._file = found, file
        self._faults: dict[str, tuple[int, str]] = {}

    def rows(self, pieces: Sequence[Piece], rows: NDArray[np.int64], first: int) -> NDArray[Any]:
        """float32 [len(rows), d] of a block.

        rows: places in the block; first: the row of the file that the block begins with.
        """
        out = np.empty((len(rows), self._found.d), np.float32)
        at = 0
        for p in pieces:
            values, width = p.values[rows], p.values.shape[1]
            out[:, at : at + width] = numbers = _numbers(values, p.dtype)
            told = numbers if p.dtype in BITS else values
            missing = np.zeros(values.shape, bool) if p.missing is None else p.missing[rows]
            where = rows + first, at
            self._note(missing, None, _FINITE, *where)
            self._note(~np.isfinite(numbers) & ~missing, told, _FINITE, *where)
            if is_integer(p.dtype):
                self._note(~_exact(values) & ~missing, told, WHOLE, *where)
            at += width
        return out

    def _note(
        self,
        bad: NDArray[np.bool_],
        values: NDArray[Any] | None,
        expected: str,
        rows: NDArray[np.int64],
        at: int,
    ) -> None:
        """Count the bad values of a piece, which begins at column `at`, and keep the first in words."""
        if not bad.any():
            return
        i, j = np.argwhere(bad)[0]
        row, column = int(rows[i]), at + int(j)
        cell = self._found.cells.get((row, column))
        if cell is not None:
            expected = WHOLE if is_whole(cell) else _FINITE
        found = "is missing" if values is None else f"holds {values[i, j]}"
        found = found if cell is None else f"holds {shown(cell)}" if cell.strip() else "is empty"
        name = shown(self._found.columns[column]) if self._found.columns else str(column)
        said = f"row {row} (counted from 0), column {name} {found}; expected {expected}"
        n, before = self._faults.get(expected, (0, said))
        self._faults[expected] = n + int(bad.sum()), before

    def finish(self) -> None:
        """Raise BadInput where a value cannot be used."""
        for n, said in self._faults.values():
            raise BadInput(f"{self._file}: {said}" + (f" ({n} such values)" if n > 1 else ""))


_FINITE = "a finite number within float32"
WHOLE = (
    f"a whole number that float32 holds, as it does all up to {EXACT:,}; write it as a fraction, or "
    "leave the column out"
)


def is_whole(cell: str) -> bool:
    """Whether a cell is written as a whole number."""
    return cell.strip().lstrip("+-").isdecimal()


def _numbers(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    return as_float32(values, dtype) if is_float(dtype) else values.astype(np.float32)


def _exact(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether float32 holds each integer: without its trailing zero bits it has 24 at most."""
    if values.dtype.itemsize < 4 or not ((values > EXACT) | (values < -EXACT)).any():
        return np.ones(values.shape, bool)
    wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64)
    size = (np.abs(wide) if wide.dtype.kind == "i" else wide).view(np.uint64)
    lowest = size & (~size + np.uint64(1))
    return size // np.maximum(lowest, np.uint64(1)) < EXACT
