"""Columns of a Parquet file as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actprobe.texts.checks import Place, require_columns


def read_parquet(data: bytes, wanted: Mapping[str, str], place: Place) -> dict[str, list[Any]]:
    """The `wanted` columns (config key -> column name) with the types that the file gives them.

    Categories become their values. Raises BadInput.
    """
    with place.guard("not a readable parquet file"):
        file = pq.ParquetFile(pa.BufferReader(data))
    there = file.schema_arrow.names
    require_columns(wanted, there, place)
    with place.guard("not a readable parquet file"):
        # By their place: a name with a dot also means a field of a column with fields.
        table = file.read(columns=sorted(set(wanted.values())), use_threads=False)
    at = Place(place.dataset, place.file, range(table.num_rows))
    return {c: _values(table.column(c), c, at) for c in dict.fromkeys(wanted.values())}


def _values(column: pa.ChunkedArray, name: str, place: Place) -> list[Any]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as e:
        raise _not_unicode(column, name, place) from e
    except Exception:
        with place.guard(f"column {name!r} of type {column.type} is not readable"):
            raise
    return [v.item() if isinstance(v, np.generic) else v for v in values]


def _not_unicode(column: pa.ChunkedArray, name: str, place: Place) -> Exception:
    """The error for the first string of a column that is not UTF-8."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    for i, value in enumerate(plain):
        try:
            value.as_py()
        except UnicodeDecodeError as e:
            problem = f"byte {e.start} (0x{e.object[e.start]:02x}) of column {name!r} is not UTF-8"
            return place.bad(f"{problem}; expected strings in UTF-8", [i])
    raise AssertionError("every string is UTF-8")
