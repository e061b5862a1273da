"""Features in a Parquet file: columns of numbers, and columns of lists of equally many numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actprobe.arrays import columns
from actprobe.arrays.features import SLICE, Features, Piece
from actprobe.arrays.targets import ArraySpec
from actprobe.files.dtypes import name_of
from actprobe.texts.checks import Place, check_ids, names
from actprobe.texts.values import shown

_UNREADABLE = "not a readable parquet file"


@contextmanager
def opened(path: Path, spec: ArraySpec, dataset: str) -> Iterator[Features]:
    """The features in a Parquet file, read in pieces."""
    place = Place(dataset, str(path))
    with place.guard(_UNREADABLE):
        file = pq.ParquetFile(path)
    with file:
        schema = file.schema_arrow
        may = columns.chosen(schema.names, spec, place, _index(schema))
        found = [i for i in may if _is_numbers(schema.field(i).type)]
        if spec.columns is not None and len(found) < len(may):
            f = schema.field(next(i for i in may if i not in found))
            raise place.bad(
                f"column {shown(f.name)} is of type {f.type}; expected numbers, or lists of equally "
                "many numbers, in a column of features"
            )
        features = [schema.names[i] for i in found]
        columns.check_meant(schema.names, features, spec, place)
        if (n := file.metadata.num_rows) == 0:
            raise place.bad("no rows; expected at least one")
        with place.guard(_UNREADABLE):
            widths = _widths(file, features, place)
            ids = None if spec.id is None else _ids(file, spec.id, place)
        d = sum(widths.values())
        yield Features(
            n,
            d,
            ids,
            lambda: _blocks(file, widths, max(1, SLICE // (8 * d)), place),
            [name for c in features for name in _names(schema.field(c).type, c, widths[c])],
            columns.left_out(schema.names, features, spec),
        )


def _index(schema: pa.Schema) -> list[str]:
    """Names of the columns that hold the row labels of a pandas table."""
    described = schema.pandas_metadata or {}
    return [c for c in described.get("index_columns", ()) if isinstance(c, str)]


def _blocks(
    file: pq.ParquetFile, widths: Mapping[str, int], step: int, place: Place
) -> Iterator[list[Piece]]:
    batches, at = file.iter_batches(step, columns=list(widths), use_threads=False), 0
    while True:
        with place.guard(_UNREADABLE):
            batch = next(batches, None)
            if batch is None:
                return
            pieces = [_piece(_column(batch, c), c, w, at, place) for c, w in widths.items()]
        yield pieces
        at += len(batch)


def _ids(file: pq.ParquetFile, column: str, place: Place) -> list[str]:
    read = file.read(columns=[column], use_threads=False).column(column).to_pylist()
    place = Place(place.dataset, place.file, range(len(read)))
    return check_ids(names(read, column, place), place)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_numbers(kind: pa.DataType) -> bool:
    """Whether a column can be a feature, or as many as its lists are long."""
    if _is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    of = pa.types
    return any(f(kind) for f in (of.is_integer, of.is_floating, of.is_boolean, of.is_decimal))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """By its place: a name with a dot also means a field of a column with fields."""
    return batch.column(batch.schema.get_field_index(name))


def _widths(file: pq.ParquetFile, features: list[str], place: Place) -> dict[str, int]:
    """How many numbers the first row has of each column."""
    first = next(file.iter_batches(1, columns=features, use_threads=False))
    found = {}
    for name in features:
        column = _column(first, name)
        value = column[0].as_py() if _is_list(column.type) else [0]
        if not value:
            raise place.bad(
                f"row 0: column {shown(name)} holds {value}; expected a list of numbers"
            )
        found[name] = len(value)
    return found


def _names(kind: pa.DataType, name: str, width: int) -> list[str]:
    return [f"{name}[{i}]" for i in range(width)] if _is_list(kind) else [name]


def _piece(column: pa.Array, name: str, width: int, first: int, place: Place) -> Piece:
    """A column of a batch that begins at row `first`."""
    n = len(column)
    if _is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        other = np.flatnonzero(lengths != width)
        if len(other):
            said = "is missing" if lengths[other[0]] < 0 else f"has {lengths[other[0]]} numbers"
            raise place.bad(
                f"row {first + other[0]} (counted from 0): column {shown(name)} {said}, the first row "
                f"has {width}; expected equally many"
            )
        column = column.flatten()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    missing = None
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False).reshape(n, width)
        column = pc.coalesce(column, pa.scalar(0, column.type))
    values = column.to_numpy(zero_copy_only=False)
    dtype = name_of(values.dtype)
    if dtype is None:
        raise place.bad(f"column {shown(name)} is of type {column.type}; expected numbers")
    return Piece(values.reshape(n, width), dtype, missing)
