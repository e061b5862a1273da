"""Representations of a collection: views of primitives, packed weights, and the controls.

One file per collection and representation: `x` float32 [N, p], rows in the order of the index (the
LoRAs that are not refused), columns unit by unit; `mask` [N, units]; `id` [N]; `reason` [N] (why a
row has no numbers); `flag` [p] (1: constant, 2: repeats another column of its unit).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.lora import names, packing, viewing
from actprobe.lora.index import Index
from actprobe.lora.records import FeaturesTarget

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """A representation of N LoRAs.

    x: float32 [N, p]; unit: index into `units` of each column [p]; mask: [N, units], False where a
    LoRA has not the module or its W is 0 (x is 0 there); id: object [N]; flag: [p].
    """

    x: Floats
    unit: NDArray[np.int64]
    units: list[str]
    mask: NDArray[np.bool_]
    id: NDArray[Any]
    flag: NDArray[np.uint8]


def load(path: str | Path, layers: Iterable[str] = ("*",), max_bytes: int = 1 << 62) -> Features:
    """The columns of a representation whose modules match one of the globs `layers`.

    LoRAs that turned out unreadable are left out. Raises BadInput for a tombstone, when no module
    matches, or when the columns need more than `max_bytes`.
    """
    patterns = list(layers)
    with store.open_h5(path) as f:
        facts = store.read_header(path)["facts"]
        units = facts["units"]
        chosen = [names.matches(u.partition(":")[0], patterns) for u in units]
        if not any(chosen):
            raise BadInput(f"{Path(path).name}: no module matches {', '.join(patterns)}")
        unit = np.repeat(np.arange(len(units)), facts["widths"])
        columns = np.asarray(chosen)[unit]
        size = 4 * f["x"].shape[0] * int(columns.sum())
        if size > max_bytes:
            raise BadInput(
                f"{Path(path).name}: {size / 1e9:.1f} GB of features for these layers, "
                f"{max_bytes / 1e9:.1f} GB are allowed (max_memory)"
            )
        x = np.empty((f["x"].shape[0], int(columns.sum())), np.float32)
        for into, run in _runs(columns):
            x[:, into] = f["x"][:, run]
        fine = f["reason"][:] == b""
        return Features(
            x[fine] if not fine.all() else x,
            np.cumsum(chosen)[unit[columns]] - 1,
            [u for u, c in zip(units, chosen, strict=True) if c],
            f["mask"][:].astype(bool)[fine][:, chosen],
            np.strings.decode(f["id"][:], "utf-8").astype(object)[fine],
            f["flag"][:][columns],
        )


def _runs(chosen: NDArray[np.bool_]) -> Iterator[tuple[slice, slice]]:
    """Runs of chosen columns: where they go, where they come from."""
    source = into = 0
    for wanted, run in groupby(chosen):
        n = len(list(run))
        if wanted:
            yield slice(into, into + n), slice(source, source + n)
            into += n
        source += n


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make every representation of the batch; all views of a collection in one pass."""
    collections: dict[str, list[FeaturesTarget]] = defaultdict(list)
    for t in batch.targets:
        collections[t.args.index].append(t)
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        for path, targets in collections.items():
            with out.guard(*targets):
                found = Index.open(path)
                options = config["loras"][targets[0].args.collection]
                views = [t for t in targets if t.args.shards]
                viewing.make(views, found, options, out)
                for t in targets:
                    if t not in views:
                        with out.guard(t):
                            out.done(t, packing.make(t, found, options))
                    log.info("made %s", t.name)
