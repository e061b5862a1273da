"""Hugging Face `datasets` tables of LoRAs: one column per tensor, one row per LoRA.

Cells are nested lists, Array2D or fixed-size lists. They are read from the Arrow buffers: the torch
and numpy formatters of `datasets` make one call per matrix row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actprobe.base.errors import BadInput, bad_file
from actprobe.files.safetensors import Tensor
from actprobe.lora import names
from actprobe.lora.adapter import Adapter
from actprobe.lora.adapter import describe as describe_adapter
from actprobe.lora.collection import Member
from actprobe.lora.compute import Factors
from actprobe.lora.numbers import Rounding, roundings
from actprobe.lora.records import Rules

ROWS = 64  # per block
_DTYPES = {"f2": "F16", "f4": "F32", "f8": "F64"}


@dataclass(frozen=True)
class Matrices:
    """A column of n matrices: flat values, and rows, width and first value of each, [n].

    dtype: what the column holds, in the words of safetensors.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    width: NDArray[np.int64]
    start: NDArray[np.int64]
    dtype: str

    def __getitem__(self, i: Any) -> Any:
        """Matrix i, a view [rows, width]."""
        rows, width, start = self.rows[i], self.width[i], self.start[i]
        return self.values[start : start + rows * width].reshape(rows, width)

    @cached_property
    def roundings(self) -> dict[int, Rounding]:
        """How each matrix was rounded, by its row; those without a number are left out."""
        there = np.flatnonzero(self.rows * self.width)
        found = roundings(self.values, self.start[there], self.dtype) if len(there) else []
        return dict(zip(there.tolist(), found, strict=True))


def blocks(path: str | Path) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow (stream or file) or Parquet file in blocks of at most `ROWS`.

    An Arrow file is mapped anew for every block, so that pages of earlier ones are given back.
    Raises BadInput when the file cannot be read.
    """
    try:
        if Path(path).suffix == ".parquet":
            with pq.ParquetFile(path) as f:
                yield from f.iter_batches(ROWS)
            return
        for n in count():
            with pa.memory_map(str(path)) as source:
                batch = _block(source, n)
                if batch is None:
                    return
                yield batch
                del batch
    except (pa.ArrowException, OSError) as e:
        raise bad_file(path, e) from None


def _block(source: Any, n: int) -> pa.RecordBatch | None:
    """Block n of a mapped Arrow file; batches are cut into blocks one by one."""
    try:
        found = iter(pa.ipc.open_stream(source))
    except pa.ArrowInvalid:
        f = pa.ipc.open_file(source)
        found = map(f.get_batch, range(f.num_record_batches))
    for batch in found:
        here = -(-batch.num_rows // ROWS)
        if n < here:
            return batch.slice(n * ROWS, ROWS)
        n -= here
    return None


def matrices(column: pa.Array) -> Matrices:
    """A column of two-dimensional cells; a null cell has 0 rows. Cells may differ in shape.

    Raises BadInput for a cell that is no matrix.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    rows, inner = _flat(column)
    widths, values = _flat(inner)
    first = np.cumsum(rows) - rows
    width = np.zeros_like(rows)
    width[rows > 0] = widths[first[rows > 0]]
    if not np.array_equal(np.repeat(width, rows), widths) or values.null_count:
        raise BadInput("the rows of a matrix differ in length, or a number is missing")
    if not pa.types.is_primitive(values.type):
        raise BadInput(f"cells hold {column.type}, expected matrices (nested lists of numbers)")
    sizes = rows * width
    flat = values.to_numpy(zero_copy_only=False)
    dtype = _DTYPES.get(flat.dtype.kind + str(flat.dtype.itemsize), "F32")
    flat = np.ascontiguousarray(flat, np.float32)
    return Matrices(flat, rows, width, np.cumsum(sizes) - sizes, dtype)


def _flat(column: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Lengths [n] of the lists of a column, and their joined content."""
    if not _is_list(column.type):
        raise BadInput(f"cells hold {column.type}, expected matrices (nested lists of numbers)")
    lengths = pc.list_value_length(column).fill_null(0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64), column.flatten()


def _is_list(kind: Any) -> bool:
    types = pa.types
    return any(f(kind) for f in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_matrix(kind: Any) -> bool:
    return (
        _is_list(kind)
        and _is_list(kind.value_type)
        and pa.types.is_floating(kind.value_type.value_type)
    )


def _tensors(batch: pa.RecordBatch, path: str) -> dict[str, Matrices]:
    """The columns that hold tensors: matrices, and nested ones that are called like a tensor."""
    found = {}
    for field in batch.schema:
        kind = field.type
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        if _is_matrix(kind) or (pa.types.is_nested(kind) and "lora" in field.name):
            try:
                found[field.name] = matrices(batch.column(field.name))
            except BadInput as e:
                raise BadInput(f"{path}: column {field.name}: {e}") from None
    return found


def describe(member: Member, options: Mapping[str, Any]) -> Iterator[tuple[str, Adapter | str]]:
    """Id of every row of a table, and its header or the reason why it cannot be used.

    The id is the value in column `options["id"]`, else the table's name and the row's number.
    Columns without tensors are metadata: labels and what else was recorded. Raises BadInput for a
    column of alphas, unless all scales are to be 1: tables of LoRAs have none.
    """
    n, rules = 0, Rules.of(options)
    for batch in blocks(member.path):
        scaled = [c for c in batch.schema.names if c.endswith(".alpha")]
        if scaled and options["alpha"] == "stored":
            raise BadInput(
                f"{member.path}: column {scaled[0]}: alphas of tables are not read "
                "(`alpha: one` takes 1 for every scale)"
            )
        tensors = _tensors(batch, member.path)
        shapes = {c: list(zip(m.rows.tolist(), m.width.tolist(), strict=True))
                  for c, m in tensors.items()}  # fmt: skip
        plain = {c: batch.column(c).to_pylist() for c in batch.schema.names if c not in tensors}
        for i in range(batch.num_rows):
            found = {
                c: Tensor(tensors[c].dtype, shapes[c][i], 0, 4 * shapes[c][i][0] * shapes[c][i][1])
                for c in tensors
                if shapes[c][i][0]
            }
            metadata = {
                c: values[i]
                for c, values in plain.items()
                if c != options["id"] and values[i] is not None
            }
            id = str(plain[options["id"]][i]) if options["id"] in plain else f"{member.id}:{n}"
            n += 1
            try:
                yield id, describe_adapter(found, metadata, None, rules, {})
            except BadInput as e:
                yield id, str(e)


def read(member: Member) -> Iterator[list[dict[str, Factors] | str]]:
    """The LoRAs of a table, block by block, each with its factors or the reason why it has none.

    Tables store no alpha: every scale is 1.
    """
    for batch in blocks(member.path):
        tensors = _tensors(batch, member.path)
        finite = all(np.isfinite(m.values).all() for m in tensors.values())
        yield [_lora(tensors, i, finite) for i in range(batch.num_rows)]


def _lora(tensors: Mapping[str, Matrices], i: int, finite: bool) -> dict[str, Factors] | str:
    """The LoRA in row i, or why there is none. finite: all numbers are known to be."""
    try:
        pairs = names.parse(tuple(c for c, m in tensors.items() if m.rows[i])).modules
    except BadInput as e:
        return str(e)
    lora = {
        n: Factors(
            tensors[p.down][i],
            tensors[p.up][i],
            1.0,
            (tensors[p.down].roundings[i], tensors[p.up].roundings[i]),
        )
        for n, p in pairs.items()
    }
    bad = "" if finite else next((n for n, f in lora.items() if not _finite(f)), "")
    return f"NaN or infinity in {bad}" if bad else lora


def _finite(f: Factors) -> bool:
    return bool(np.isfinite(f.down).all() and np.isfinite(f.up).all())
