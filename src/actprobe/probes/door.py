"""The one place where weights and scores pass: which of them an artefact keeps beside its rows.

What is kept stands in columns `kept_*` of the same table, lists of numbers that `told` leaves out. Of
directions all is kept, since they are written as files; of other probes nothing yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PREFIX = "kept_"

# Of a direction: float64 [d] each but for the last rows. statistics: [n_test, 4] in one row after the
# other; row: of the test dataset; null_*: AUCs of the null directions.
KEPT = {
    **dict.fromkeys(
        ("direction", "mean_positive", "mean_negative", "statistics", "null_random",
         "null_permuted"),
        pa.float64(),
    ),
    "row": pa.int64(),
    "y": pa.uint8(),
    "n_tokens": pa.int32(),
}  # fmt: skip


def columns() -> list[tuple[str, pa.DataType]]:
    """Columns of a table that keeps."""
    return [(f"{_PREFIX}{name}", pa.list_(kind)) for name, kind in KEPT.items()]


def keep(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays by name (`KEPT`) as the cells of a row."""
    return {f"{_PREFIX}{name}": arrays[name].ravel() for name in KEPT}


def kept(row: dict[str, Any], name: str) -> list[Any]:
    """What a row keeps under a name."""
    found = row[f"{_PREFIX}{name}"]
    assert found is not None
    return list(found)


def told(table: pa.Table) -> pa.Table:
    """The table without what is kept: numbers and words alone."""
    return table.select([c for c in table.column_names if not c.startswith(_PREFIX)])
