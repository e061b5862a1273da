"""Contrastive artefacts: what stands in the file, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import keys, store

RANDOM = "random"  # the kind of null that is no method's own


@dataclass(frozen=True)
class Validated:
    """Scores of a validation set: y, 0/1 labels [N]; values [m, N, 4] (`scores.STATISTICS`);
    n_tokens int32 [N], -1 where an imported cache does not tell it; null: AUROCs of null directions,
    of "random" ones and of each method's own; the numbers per method."""

    y: NDArray[np.uint8]
    values: NDArray[np.float64]
    n_tokens: NDArray[np.int32]
    null: Mapping[str, NDArray[np.float64]]
    numbers: list[dict[str, Any]]


@dataclass(frozen=True)
class Directions:
    """The directions of one source and training set, methods in the order of `methods`.

    mean_positive, mean_negative: float64 [d]; direction, unit: float64 [m, d]; norm: [m]; numbers:
    what the training rows say of each method; validated: dataset -> scores; facts: train, source,
    model, site, position, score_at, positive, n_train and so on.
    """

    key: str
    methods: list[str]
    mean_positive: NDArray[np.float64]
    mean_negative: NDArray[np.float64]
    direction: NDArray[np.float64]
    norm: NDArray[np.float64]
    unit: NDArray[np.float64]
    numbers: list[dict[str, Any]]
    validated: Mapping[str, Validated]
    facts: Mapping[str, Any]


def write(
    path: str,
    spec: Mapping[str, Any],
    arrays: Mapping[str, NDArray],
    validated: Mapping[str, Validated],
    facts: Mapping[str, Any],
) -> Path:
    """Write the finished, sealed part: arrays of the directions, a group per validation set."""
    found = dict(arrays)
    for name, v in validated.items():
        found |= {f"validate/{name}/{k}": getattr(v, k) for k in ("y", "values", "n_tokens")}
        found |= {f"validate/{name}/null/{kind}": aucs for kind, aucs in v.null.items()}
    numbers = {name: v.numbers for name, v in validated.items()}
    return store.write_h5(path, found, spec, {**facts, "validate": numbers})


def load(path: str | Path) -> Directions:
    """Read an artefact. Raises BadInput with the stored reason for a tombstone."""
    with store.open_h5(path) as f:
        names = ("mean_positive", "mean_negative", "direction", "norm", "unit")
        arrays = {name: f[name][:] for name in names}
        facts = store.read_header(path)["facts"]
        validated = {
            name: Validated(
                f[f"validate/{name}/y"][:],
                f[f"validate/{name}/values"][:],
                f[f"validate/{name}/n_tokens"][:],
                {kind: d[:] for kind, d in f[f"validate/{name}/null"].items()},
                numbers,
            )
            for name, numbers in facts["validate"].items()
        }
    rest = {k: v for k, v in facts.items() if k not in ("validate", "numbers")}
    key = keys.short(store.read_header(path)["key"])
    return Directions(
        key, facts["methods"], **arrays, numbers=facts["numbers"], validated=validated, facts=rest
    )


def plain(value: float) -> float | None:
    """A number as JSON holds it: NaN becomes null."""
    return None if np.isnan(value) else float(value)
