"""Readers: bytes of a file in any of the formats to columns of plain Python values."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from actprobe.texts.checks import Place, require_columns


def read(data: bytes, format: str, wanted: Mapping[str, str], place: Place) -> dict[str, list[Any]]:
    """The `wanted` columns (config key -> column name), column name -> values of all rows.

    Cells of csv and tsv are strings exactly as written, with nothing taken for missing; json and
    parquet keep their types, with None and NaN for missing values. Raises BadInput for a file that
    is not in its format or not UTF-8, and for missing columns.
    """
    if format.endswith(".zst"):
        data, format = _decompress(data, place), format.removesuffix(".zst")
    if format == "parquet":
        return _parquet(data, wanted, place)
    text = _decode(data, place)
    if format in ("csv", "tsv"):
        return _table(text, "," if format == "csv" else "\t", wanted, place)
    return _records(_json(text, place) if format == "json" else _jsonl(text, place), wanted, place)


def _decompress(data: bytes, place: Place) -> bytes:
    """Content of all frames; a stream reader would take a truncated file for a short one."""
    content = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            content.append(frame.decompress(data))
        except zstandard.ZstdError as e:
            raise place.bad(f"not a zstandard file ({e})") from e
        if not frame.eof:
            raise place.bad("the zstandard file is cut short")
        data = frame.unused_data
    return b"".join(content)


def _decode(data: bytes, place: Place) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise place.bad(
            f"byte {e.start} (0x{data[e.start]:02x}, line {line}) is not UTF-8; "
            "expected a file in UTF-8"
        ) from e


def _table(
    text: str, separator: str, wanted: Mapping[str, str], place: Place
) -> dict[str, list[Any]]:
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, na_filter=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as e:
        raise place.bad(f"not a table with a header row ({str(e).strip()})") from e
    if not isinstance(frame.index, pd.RangeIndex):
        raise place.bad(f"rows have more cells than the header, which has {frame.shape[1]}")
    require_columns(wanted, list(frame.columns), place)
    return {c: frame[c].tolist() for c in wanted.values()}


def _parquet(data: bytes, wanted: Mapping[str, str], place: Place) -> dict[str, list[Any]]:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        require_columns(wanted, file.schema_arrow.names, place)
        table = file.read(columns=sorted(set(wanted.values())))
        return {c: table.column(c).to_pylist() for c in table.column_names}
    except (pa.ArrowInvalid, OSError) as e:
        raise place.bad(f"not a parquet file ({e})") from e
    except UnicodeDecodeError as e:
        raise place.bad("a column of strings is not UTF-8") from e


def _json(text: str, place: Place) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError as e:
        raise place.bad(f"not JSON: {e}") from e
    if isinstance(content, dict):
        lengths = {len(v) if isinstance(v, list) else -1 for v in content.values()}
        if len(lengths) != 1 or -1 in lengths:
            raise place.bad("expected a list of objects, or an object of equally long lists")
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    return content if isinstance(content, list) else [content]


def _jsonl(text: str, place: Place) -> list[Any]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as e:
                raise place.bad(f"line {number} is not JSON: {e}") from e
    return records


def _records(records: list[Any], wanted: Mapping[str, str], place: Place) -> dict[str, list[Any]]:
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise place.bad(f"row {i + 1} is a {type(record).__name__}; expected an object")
    names = list(dict.fromkeys(name for record in records for name in record))
    if records:
        require_columns(wanted, names, place)
    return {c: [record.get(c) for record in records] for c in wanted.values()}
