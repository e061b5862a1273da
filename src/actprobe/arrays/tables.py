"""Features in tables: csv, tsv and Parquet, a column or a list of numbers per feature."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.arrays import columns
from actprobe.arrays.features import EXACT, SLICE, Features, Piece, is_whole
from actprobe.arrays.targets import ArraySpec
from actprobe.files import limits
from actprobe.texts import delimited
from actprobe.texts.checks import Place, check_ids, names
from actprobe.texts.read import decode
from actprobe.texts.values import meaning

_SEPARATORS = {"csv": ",", "tsv": "\t"}


@contextmanager
def opened(path: Path, spec: ArraySpec, dataset: str) -> Iterator[Features]:
    """The features in a csv or tsv file, read as a whole."""
    place = Place(dataset, str(path))
    if path.stat().st_size > limits.IN_MEMORY:
        raise place.bad(
            f"{path.stat().st_size:,} bytes, and a .{spec['format']} file is read as a whole up to "
            f"{limits.IN_MEMORY:,}; write it as .parquet or .npy"
        )
    text = decode(path.read_bytes(), spec.format, place)
    dialect = delimited.Dialect(_SEPARATORS[spec.format])
    yield _table(delimited.records(text, dialect, place), spec, place)


@dataclass
class _Numbers:
    """The cells of some columns as float64, NaN where a cell is no number.

    cells: what stands there instead, of the first ones (row, place among the columns).
    """

    width: int
    values: array = field(default_factory=lambda: array("d"))
    cells: dict[tuple[int, int], str] = field(default_factory=dict)
    n: int = 0

    def add(self, cells: Sequence[str]) -> None:
        """Append a row."""
        joined = "".join(cells)
        try:
            if "_" in joined or not joined.isascii():
                raise ValueError
            found = list(map(float, cells))
            simple = all(-EXACT <= v <= EXACT for v in found)
        except ValueError:
            simple = False
        if not simple:
            found = [self._one(cell, j) for j, cell in enumerate(cells)]
        self.values.extend(found)
        self.n += 1

    def _one(self, cell: str, j: int) -> float:
        value = number(cell)
        if math.isnan(value) and (self.n == 0 or len(self.cells) < limits.TOLD):
            self.cells[self.n, j] = cell
        return value

    def matrix(self) -> NDArray[np.float64]:
        return np.frombuffer(self.values, np.float64).reshape(self.n, self.width)


def number(cell: str) -> float:
    """What a cell says: a number, 1 or 0 for true and false, NaN for anything else and for a whole
    number that float32 does not hold."""
    kind, value = meaning(cell)
    if kind == "boolean":
        return float(bool(value))
    if kind == "word" or not cell.isascii():
        return math.inf if cell.strip().lower().lstrip("+-") in ("inf", "infinity") else math.nan
    return math.nan if is_whole(cell) and not _held(int(cell)) else float(cell)


def _held(whole: int) -> bool:
    """Whether float32 holds a whole number: 24 bits, and zeros after them."""
    lowest = whole & -whole
    return whole == 0 or abs(whole) // lowest < EXACT


def _table(records: Iterator[tuple[int, list[str]]], spec: ArraySpec, place: Place) -> Features:
    """Columns whose first cell is text are left out, unless they are asked for.

    A number further down in one is an error, but in the dataset's own texts, groups and the like.
    """
    header = next(records)[1]
    may, asked = columns.chosen(header, spec, place), spec.columns is not None
    own = None if spec.id is None else header.index(spec.id)
    ids: list[str] = []
    lines: list[int] = []
    texts: dict[int, str] = {}  # columns of text, with their first cell
    found = _Numbers(0)
    for line, cells in records:
        if not lines:
            texts = {} if asked else {i: cells[i] for i in may if _is_word(cells[i])}
            may = [i for i in may if i not in texts]
            found = _Numbers(len(may))
            take = _taking(may)
        for i, first in texts.items():
            if header[i] not in spec.meant and not math.isnan(number(cells[i])):
                raise columns.is_text(
                    header[i], first, place, f"line {lines[0]}, a number in {line}"
                )
        found.add(take(cells))
        lines.append(line)
        if own is not None:
            ids.append(cells[own])
    if not lines:
        raise place.bad("no rows; expected at least one below the header")
    x = found.matrix()
    kept = [j for j in range(len(may)) if asked or _says(x[:, j], found.cells.get((0, j), ""))]
    features = [header[may[j]] for j in kept]
    columns.check_meant(header, features, spec, place)
    place = replace(place, rows=range(len(lines)), lines=lines)
    at = {j: k for k, j in enumerate(kept)}
    step = max(1, SLICE // (8 * len(kept)))

    def blocks() -> Iterator[list[Piece]]:
        for i in range(0, len(x), step):
            yield [Piece(x[i : i + step][:, kept], "float64")]

    return Features(
        len(x),
        len(kept),
        None if spec.id is None else check_ids(names(ids, spec.id, place), place),
        blocks,
        features,
        columns.left_out(header, features, spec),
        {(row, at[j]): cell for (row, j), cell in found.cells.items() if j in at},
    )


def _says(column: NDArray[np.float64], first: str) -> bool:
    """Whether a column holds a number anywhere, if only one that float32 does not."""
    return is_whole(first) or not np.isnan(column).all()


def _is_word(cell: str) -> bool:
    """Whether a cell says that its column holds text: an empty one says nothing."""
    return bool(cell.strip()) and meaning(cell)[0] == "word" and math.isnan(number(cell))


def _taking(places: list[int]) -> Any:
    if len(places) == 1:
        return lambda cells: [cells[places[0]]]
    return itemgetter(*places) if places else lambda cells: []
