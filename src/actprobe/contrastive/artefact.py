"""A direction tried on a dataset, as an artefact of `probes` keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import store
from actprobe.errors import BadInput
from actprobe.probes import door
from actprobe.probes.projections import STATISTICS


@dataclass(frozen=True)
class Applied:
    """One direction and the scores of one test set.

    row: its tidy row; direction, unit, mean_positive, mean_negative: float64 [d]; at: rows of the
    test dataset that have a label [N]; y: 0/1 labels [N]; values: [N, 4]
    (`projections.STATISTICS`); n_tokens: int32 [N], -1 where an imported cache does not tell it; null:
    AUCs of null directions, `random` ones and fits on `permuted` labels.
    """

    row: Mapping[str, Any]
    direction: NDArray[np.float64]
    mean_positive: NDArray[np.float64]
    mean_negative: NDArray[np.float64]
    at: NDArray[np.int64]
    y: NDArray[np.uint8]
    values: NDArray[np.float64]
    n_tokens: NDArray[np.int32]
    null: Mapping[str, NDArray[np.float64]]

    @property
    def unit(self) -> NDArray[np.float64]:
        """The direction of norm 1, [d]; zero where there is none."""
        return np.asarray(self.direction / (self.row["norm"] or 1.0), np.float64)


def load(path: str | Path) -> Applied | None:
    """Read an artefact; None for a baseline.

    Raises BadInput with the stored reason for a tombstone.
    """
    table = store.read_table(path)
    if "kept_direction" not in table.column_names:
        return None
    (row,) = table.to_pylist()
    if row["kept_direction"] is None:
        return None
    arrays = {name: np.array(door.kept(row, name), dtype.to_pandas_dtype())
              for name, dtype in door.DIRECTION.items()}  # fmt: skip
    return Applied(
        {c: v for c, v in row.items() if not c.startswith("kept_")},
        arrays["direction"],
        arrays["mean_positive"],
        arrays["mean_negative"],
        arrays["row"],
        arrays["y"],
        arrays["statistics"].reshape(-1, len(STATISTICS)),
        arrays["n_tokens"],
        {kind: arrays[f"null_{kind}"] for kind in ("random", "permuted")},
    )


def load_all(paths: Iterable[str | Path]) -> list[Applied]:
    """The directions among these artefacts; tombstones and baselines are passed over."""
    found = []
    for path in paths:
        try:
            of = load(path)
        except BadInput:
            continue
        if of is not None:
            found.append(of)
    return found
