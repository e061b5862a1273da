"""Parquet artefacts: small tables written whole (texts, probe results)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actprobe.base.errors import BadInput
from actprobe.cache.store import files
from actprobe.cache.store.header import make_header


def write_table(
    path: str | Path,
    table: pa.Table,
    spec: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    bad: str | None = None,
) -> Path:
    """Write the finished, sealed part of a Parquet artefact and return the part's path.

    The caller publishes it (`store.publish`). With `bad`, pass an empty table with the right
    columns: the artefact is then a tombstone that holds the reason instead of data.
    """
    with (
        files.whole(path) as (new, part),
        files.out_of_space(path, table.nbytes),
        pq.ParquetWriter(new, table.schema, compression="zstd") as writer,
    ):
        writer.write_table(table)
        writer.add_key_value_metadata(
            {"actprobe": make_header(spec, facts, bad, files.made_from(path))}
        )
    return part


def read_table(
    path: str | Path, columns: Sequence[str] | Callable[[str], bool] | None = None
) -> pa.Table:
    """The table of a Parquet artefact, checked (`files.checked`) first.

    columns: which are read, by name or by what says yes to a name; None reads all.

    Raises BadInput with the stored reason when the artefact is a tombstone.
    """
    header = files.checked(path)
    if header["bad"]:
        raise BadInput(header["bad"])
    try:
        if callable(columns):
            columns = [c for c in pq.read_schema(path).names if columns(c)]
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as e:
        raise files.cannot_open(path, e) from e
