"""Features of LoRA weights as a source: columns in named units, of modules that an item may lack."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import lora
from actprobe.cache import store
from actprobe.probes.keep.steps import Units
from actprobe.probes.records import FeatureArgs
from actprobe.probes.scaling import standardise
from actprobe.probes.splits import Rows, Split

_FAR_OUT = 0.5  # share of its values that must be cut for an item to be named as an outlier
_MOST_NAMED = 20
_REPEATED = 2  # flag of a column that repeats another of its unit


@dataclass(frozen=True)
class Features:
    """A representation of n LoRAs.

    x: float32 [n, p]; unit: index into `units` of each column [p]; mask: [n, units], False where an item
    lacks the module or its W is 0; id: object [n]; repeated: columns that repeat another one [p].
    """

    x: NDArray[np.float32]
    unit: NDArray[np.int64]
    units: Sequence[str]
    mask: NDArray[np.bool_]
    id: NDArray[Any]
    repeated: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """The columns [p] of each module by its name, in the order of the names."""
        module = np.array([u.partition(":")[0] for u in self.units], object)
        return {m: (module == m)[self.unit] for m in sorted(set(module))}

    def some(self, columns: NDArray[np.bool_]) -> Features:
        """The same items with some of the columns [p]."""
        return Features(
            self.x[:, columns], self.unit[columns], self.units, self.mask, self.id,
            self.repeated[columns],
        )  # fmt: skip

    def at(self, rows: Any) -> Features:
        """These of the items, in this order."""
        return replace(self, x=self.x[rows], mask=self.mask[rows], id=self.id[rows])

    def sides(
        self, row: Rows, split: Split, how: Mapping[str, Any]
    ) -> tuple[list[NDArray[np.float32]], dict[str, Any], list[Units]]:
        """Train, validation and test rows, scaled as a method says; what is told of the columns; and
        the step that scales other rows in the same way.

        row: places of the labelled items; split: among these.
        """
        assert split.validation is not None
        parts = [split.train, split.validation, split.test]
        ends = np.cumsum([len(p) for p in parts])
        at = row[np.concatenate(parts)]
        x, told = self.x[at], {"n_columns": self.x.shape[1], "n_repeated": int(self.repeated.sum())}
        p = x.shape[1]
        steps = [Units.as_they_are(p)]
        if how["scaler"] == "units":
            train = np.arange(ends[0])
            by = standardise(x, self.mask[at], self.unit, train, how["constant"])
            far = self.id[np.sort(at[by.cut >= _FAR_OUT])].tolist()[:_MOST_NAMED]
            told |= {"n_constant": by.still, "outliers": json.dumps(far)}
            steps = [Units(by.low, by.high, by.mean, by.factor, self.unit)]
        return [x[: ends[0]], x[ends[0] : ends[1]], x[ends[1] :]], told, steps


def load(args: FeatureArgs) -> Features:
    """The features that a target reads, its parts side by side.

    The control recipe_only leaves out ignored metadata, and LoRAs whose weights cannot be used; it
    has the joint values of what is left.
    """
    parts = [lora.load(path, args.patterns) for path in args.features]
    first = parts[0]
    x = first.x if len(parts) == 1 else np.concatenate([p.x for p in parts], axis=1)
    repeated = np.concatenate([p.flag for p in parts]) == _REPEATED
    if args.representation != "recipe_only":
        unit = np.concatenate([p.unit for p in parts])
        return Features(x, unit, first.units, first.mask, first.id, repeated)
    entries = store.read_header(args.features[0])["facts"]["entries"]
    kept = np.array([e not in args.ignored for e in entries])
    rows = np.isin(first.id.astype(str), lora.load(args.usable or "").id.astype(str))
    x = x[rows][:, kept]
    cells = lora.joint(x)
    repeated = np.concatenate([repeated[kept], np.zeros(cells.shape[1], bool)])
    x = np.column_stack([x, cells])
    unit = np.zeros(x.shape[1], np.int64)
    return Features(x, unit, first.units, first.mask[rows], first.id[rows], repeated)
