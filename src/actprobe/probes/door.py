"""The one place where weights and scores pass: which of them an artefact keeps beside its rows.

What is kept stands in columns `kept_*` of the same table, which `told` leaves out.

Every fit of a kept setting (`keep` of `probes`) has

    kept_train       int32, places of the train rows in the collection, in the order of the fit
    kept_validation  int32, of the validation rows, where the split has some
    kept_test        int32, of the test rows, in the collection that tests
    kept_label       float64, labels of these rows one after the other, as the fit saw them: 0/1, class
                     numbers, or values; flipped or exchanged ones as they were fitted
    kept_scores      float64, scores of the same rows by the final fit, of several classes
                     [rows, classes] flattened; NaN where a fit has no model to score train rows with
    kept_held_out    float64, scores of the train rows by fits that had not seen them (NaN: none)
    kept_model       bytes of the model (`keep.read` scores with them), or null
    kept_why         why there is no model, or ""

They are null in a row without a number. A place is the number of a row in the collection's own order,
rows without a label included: of texts in their artefact, of LoRAs in their features. A direction keeps
more (`DIRECTION`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from actprobe.cache import store

_PREFIX = "kept_"

FIT = {
    **dict.fromkeys(("train", "validation", "test"), pa.list_(pa.int32())),
    **dict.fromkeys(("label", "scores", "held_out"), pa.list_(pa.float64())),
    "model": pa.binary(),
    "why": pa.string(),
}
# Of a direction: float64 [d] each but for the last rows. statistics: [n_test, 4] in one row after the
# other; row: of the test dataset; null_*: AUCs of the null directions.
DIRECTION = {
    **dict.fromkeys(
        ("direction", "mean_positive", "mean_negative", "statistics", "null_random",
         "null_permuted"),
        pa.float64(),
    ),
    "row": pa.int64(),
    "y": pa.uint8(),
    "n_tokens": pa.int32(),
}  # fmt: skip


def columns(fits: bool, directions: bool) -> list[tuple[str, pa.DataType]]:
    """Columns of a table that keeps its fits, and of one whose directions keep more."""
    found = [(f"{_PREFIX}{name}", kind) for name, kind in FIT.items()] if fits else []
    if directions:
        found += [(f"{_PREFIX}{name}", pa.list_(kind)) for name, kind in DIRECTION.items()]
    return found


def keep(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays by name as the cells of a row."""
    return {f"{_PREFIX}{k}": v.ravel() if hasattr(v, "ravel") else v for k, v in arrays.items()}


def kept(row: dict[str, Any], name: str) -> list[Any]:
    """What a row keeps under a name."""
    found = row[f"{_PREFIX}{name}"]
    assert found is not None
    return list(found)


def told(path: str | Path) -> pa.Table:
    """The table of an artefact without what is kept, which is not read: numbers and words alone.

    Raises BadInput with the stored reason when the artefact is a tombstone.
    """
    return store.read_table(path, lambda column: not column.startswith(_PREFIX))
