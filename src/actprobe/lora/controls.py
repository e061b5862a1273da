"""What a probe may read besides the weights' content: the recipe of a LoRA."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.index import Index

_MOST = 50  # distinct values of one entry up to which each gets a column
_CELLS = 500  # joint values that get a column, the commonest


def recipe(
    found: Index, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """The control `recipe_only` [n, columns] of these LoRAs, its column names and their entries
    (those of the metadata, and `file.rank`, …).

    Per module: presence, rank and scale. Per file: dialect, dtype, bytes, tensors beside the LoRA,
    and which modules, ranks and scales it has altogether. Of its metadata: the numbers, and of every
    entry, number or not, that takes at most 50 values, a column per value: a linear classifier tells
    ranks 1 and 4 from 2 and 8 by them alone. A probe above chance here means that the collection
    gives the label away without any weight.
    """
    groups = {
        "present": found.present().astype(float),
        "rank": found.dense("rank"),
        "scale": found.dense("scale"),
    }
    values = [x[np.ix_(rows, found.used)] for x in groups.values()]
    columns = [f"{name}:{found.modules[m]}" for name in groups for m in found.used]
    entries = [f"file.{name}" for name in groups for _ in found.used]
    metadata = [json.loads(text) for text in found["metadata"][rows]]
    by_file: dict[str, list[Any]] = {
        "dialect": found["dialect"][rows].tolist(),
        "dtype": found["dtype"][rows].tolist(),
        "bytes": found["bytes"][rows].tolist(),
        "extra": found["extra"][rows].tolist(),
    }
    by_file |= {name: _patterns(x) for name, x in zip(groups, values, strict=True)}
    told = {k: [m.get(k) for m in metadata] for k in sorted({k for m in metadata for k in m})}
    for prefix, group in (("file.", by_file), ("", told)):
        for name, entry in group.items():
            x, labels = _encoded(entry)
            values.append(x)
            columns += [f"{name}{label}" for label in labels]
            entries += [f"{prefix}{name}"] * len(labels)
    return np.column_stack(values).astype(np.float32), columns, entries


def _patterns(x: NDArray[np.float64]) -> list[str]:
    """Which of the different rows of x [n, modules] each row is."""
    return [f"pattern {i}" for i in np.unique(x, axis=0, return_inverse=True)[1].ravel()]


def _encoded(entry: list[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """One entry [n] as numbers [n, columns]: itself where it is a number (0 where it is missing),
    and a column of 0/1 for each of its values, a missing one among them, where these are few."""
    numbers = [_number(v) for v in entry]
    numeric = all(n is not None for n, v in zip(numbers, entry, strict=True) if v is not None)
    text = [
        str(v) if n is None or not numeric else repr(n) for n, v in zip(numbers, entry, strict=True)
    ]
    found = [np.array([n or 0.0 for n in numbers])] if numeric else []
    labels = [""] if numeric else []
    known = sorted(Counter(text))
    if len(known) > _MOST:
        known = ["None"] if numeric and None in entry else []
    found += [np.array([float(t == k) for t in text]) for k in known]
    labels += [f"={k}" for k in known]
    return np.column_stack([np.zeros((len(entry), 0)), *found]), labels


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def joint(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A column of 0/1 for each combination of 0/1 columns that more than one LoRA has [n, cells].

    What entries say together, no linear classifier reads from their single columns.
    """
    binary = x[:, ((x == 0) | (x == 1)).all(axis=0)]
    _, cell, counts = np.unique(binary, axis=0, return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:_CELLS]
    common = common[(counts[common] > 1) & (counts[common] < len(x))]
    return np.asarray(cell.ravel()[:, None] == common, np.float32)
