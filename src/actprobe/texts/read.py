"""Readers: bytes of a file in any of the formats to columns of plain Python values."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from actprobe.texts import columnar, delimited, objects
from actprobe.texts.checks import Place
from actprobe.texts.records import TextSpec

_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
_MAGIC = (
    (b"\x28\xb5\x2f\xfd", "a zstandard file: write `format: {format}.zst`"),
    (b"PAR1", "a Parquet file: write `format: parquet`"),
    (b"\x1f\x8b", "a gzip file; unpack it with gunzip"),
    (b"PK\x03\x04", "a zip file, as .xlsx is; save its table as CSV in UTF-8"),
)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    columns: column name -> values of all rows. lines: the line in which each row begins, from 1;
    empty for json and parquet. quoting: of csv and tsv, whether cells can be quoted ("rfc4180") or
    quotes are text ("none"); else None.
    """

    columns: dict[str, list[Any]]
    lines: Sequence[int] = ()
    quoting: str | None = None


def read(data: bytes, spec: TextSpec, wanted: Mapping[str, str], place: Place) -> Content:
    """The `wanted` columns (config key -> column name) of a file.

    Cells of csv and tsv are strings exactly as written, with nothing taken for missing; json and parquet
    keep their types, with None and NaN for missing values. Raises BadInput for a file that is not
    in its format or not UTF-8, for missing columns and for a column or key that stands twice.
    """
    kind, dot, packed = spec.format.partition(".")
    ending = dot + packed
    return READERS[kind](
        _decompress(data, kind, place) if ending else data, spec, wanted, place, ending
    )


def _parquet(
    data: bytes, spec: TextSpec, wanted: Mapping[str, str], place: Place, ending: str
) -> Content:
    return Content(columnar.read_parquet(data, wanted, place))


def _json(
    data: bytes, spec: TextSpec, wanted: Mapping[str, str], place: Place, ending: str
) -> Content:
    return Content(objects.read_json(decode(data, "json", place), ending, wanted, place))


def _jsonl(
    data: bytes, spec: TextSpec, wanted: Mapping[str, str], place: Place, ending: str
) -> Content:
    return Content(*objects.read_jsonl(decode(data, "jsonl", place), ending, wanted, place))


def _delimited(
    data: bytes, spec: TextSpec, wanted: Mapping[str, str], place: Place, ending: str
) -> Content:
    kind = spec.format.partition(".")[0]
    dialect = delimited.Dialect(
        spec.separator or {"csv": ",", "tsv": "\t"}[kind],
        True if spec.quotes is None and kind == "csv" else spec.quotes,
        spec.separator is not None,
        ending,
    )
    table = delimited.read(decode(data, kind, place), dialect, wanted, place)
    return Content(table.columns, table.lines, table.quoting)


# What reads a format: the bytes, unpacked; the spec, the columns and the place as `read` takes them; and
# what the file's name ends in besides (".zst" or ""), for messages.
Reader = Callable[[bytes, TextSpec, Mapping[str, str], Place, str], Content]
READERS: dict[str, Reader] = {
    "csv": _delimited,
    "tsv": _delimited,
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
}


def _decompress(data: bytes, kind: str, place: Place) -> bytes:
    """Content of all frames; a stream reader would take a truncated file for a short one."""
    content = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            content.append(frame.decompress(data))
        except zstandard.ZstdError as e:
            raise place.bad(
                f"not a zstandard file ({e}); write `format: {kind}` for one that is not compressed"
            ) from e
        if not frame.eof:
            raise place.bad("the zstandard file is cut short")
        data = frame.unused_data
    return b"".join(content)


def decode(data: bytes, kind: str, place: Place) -> str:
    """The text of a file in UTF-8, a byte order mark aside. Raises BadInput naming the first byte."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            raise _encoded(encoding, place)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        for magic, what in _MAGIC:
            if data.startswith(magic):
                raise place.bad(f"this is {what.format(format=kind)}") from e
        line = data.count(b"\n", 0, e.start) + 1
        raise place.bad(
            f"byte {e.start} (0x{data[e.start]:02x}, line {line}) is not UTF-8; expected a file in "
            "UTF-8: `iconv -f ENCODING -t UTF-8 FILE > NEW`, where ENCODING is often cp1252"
        ) from e
    for zeros, others, encoding in ((1, 0, "UTF-16LE"), (0, 1, "UTF-16BE")):  # without a mark
        if len(data) > 3 and any(data[others:20:2]) and not any(data[zeros:20:2]):
            raise _encoded(encoding, place)
    return text


def _encoded(encoding: str, place: Place) -> Exception:
    return place.bad(
        f"the file is in {encoding}; expected UTF-8: `iconv -f {encoding} -t UTF-8 FILE > NEW`"
    )
