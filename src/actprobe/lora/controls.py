"""What a probe may read besides the weights' content: the recipe of a LoRA."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.index import Index

_MOST = 50  # distinct values of one metadata entry up to which each gets a column


def recipe(found: Index, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], list[str]]:
    """The control `recipe_only` [n, columns] of these LoRAs, and its column names.

    Per module: presence, rank and scale. Per file: dialect, dtype and bytes. Of its metadata: the
    numbers, and a column per value of entries that take at most 50. A probe above chance here
    means that the collection gives the label away without any weight.
    """
    groups = [
        ("present", found.present().astype(float)),
        ("rank", found.dense("rank")),
        ("scale", found.dense("scale")),
    ]
    columns = [f"{name}:{found.modules[m]}" for name, _ in groups for m in found.used]
    metadata = [json.loads(text) for text in found["metadata"][rows]]
    entries: dict[str, list[Any]] = {
        "dialect": found["dialect"][rows].tolist(),
        "dtype": found["dtype"][rows].tolist(),
        "bytes": found["bytes"][rows].tolist(),
        "extra": found["extra"][rows].tolist(),
    }
    entries |= {k: [m.get(k) for m in metadata] for k in sorted({k for m in metadata for k in m})}
    values = [x[np.ix_(rows, found.used)] for _, x in groups]
    for name, entry in entries.items():
        x, labels = _encoded(entry)
        values.append(x)
        columns += [f"{name}{label}" for label in labels]
    return np.column_stack(values).astype(np.float32), columns


def _encoded(entry: list[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """One metadata entry [n] as numbers [n, columns]; missing values are 0 with a column of 0/1."""
    numbers = [_number(v) for v in entry]
    if all(n is not None for n, v in zip(numbers, entry, strict=True) if v is not None):
        missing = [n is None for n in numbers]
        x = np.array([[n or 0.0, float(m)] for n, m in zip(numbers, missing, strict=True)])
        return (x, ["", "=missing"]) if any(missing) else (x[:, :1], [""])
    counts = Counter(str(v) for v in entry)
    if len(counts) > _MOST:
        return np.zeros((len(entry), 0)), []
    known = sorted(counts)
    return np.array([[float(str(v) == k) for k in known] for v in entry]), [f"={k}" for k in known]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
