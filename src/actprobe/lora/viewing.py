"""Makes the representations that are views of primitives: all of a collection in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.lora import compute, primitives, views
from actprobe.lora.catalog import REPRESENTATIONS
from actprobe.lora.flags import Flags
from actprobe.lora.index import Index
from actprobe.lora.records import FeaturesTarget, Sketch

_ROWS = 128  # LoRAs that are held at once
_TOO_LARGE = b"a feature is not finite: its weights are too large"


def make(
    targets: Iterable[FeaturesTarget], found: Index, options: Mapping[str, Any], out: Outcome
) -> None:
    """Make these views of one collection; each file of primitives is read once.

    How the collection is cut into shards leaves no trace in the result. A view whose primitives
    stand for a bad input becomes bad itself; the others go on.
    """
    rows = np.flatnonzero(found.refused == "")
    sizes = Sketch.of(options)
    with ExitStack() as stack:
        made = []
        for t in targets:
            with out.guard(t):
                _require(t)
                made.append(_View(t, found, rows, sizes, stack))
        pending = [v for v in made if v.part.pending]
        for n, shard in enumerate(pending[0].shards if pending else ()):
            readable = primitives.shard_rows(found, shard.name, bool(options.get("tables")))
            paths = {
                f: p
                for v in pending
                for f, p in zip(v.families, v.shards[n].primitives, strict=True)
            }
            _read_shard(pending, paths, found, rows, readable)
        for v in made:
            with out.guard(v.target):
                out.done(v.target, v.finish(options))


def _require(t: FeaturesTarget) -> None:
    """Raise BadInput when one of the target's primitives is a tombstone."""
    for shard in t.args.shards:
        for path in shard.primitives:
            if bad := store.checked(path)["bad"]:
                raise BadInput(bad)


class _View:
    """One representation that is being written: x [N, units · columns], unit by unit."""

    def __init__(
        self,
        t: FeaturesTarget,
        found: Index,
        rows: NDArray[np.int64],
        sizes: Sketch,
        stack: ExitStack,
    ):
        self.target, self.name = t, t.spec.representation
        self.shards, self.families = t.args.shards, REPRESENTATIONS[self.name].families
        self._columns = {f: compute.columns(f, sizes) for f in self.families}
        empty = {f: np.zeros((0, 1, len(c)), np.float32) for f, c in self._columns.items()}
        names = list(views.view(self.name, empty, self._columns)[1])
        units = compute.units(self.families[0], [found.modules[m] for m in found.used])
        self._units, self._position = units, {u: i for i, u in enumerate(units)}
        self._shape = len(units), len(names)
        self._id = found.encoded_ids(rows)
        self._flags = Flags(*self._shape)
        widths = [len(names)] * len(units)
        self.part = stack.enter_context(
            store.Part(
                t.path,
                t.record,
                arrays(len(rows), len(units), sum(widths), self._id.dtype),
                1,
                {"units": units, "columns": names, "widths": widths},
            )
        )

    def fill(
        self, at: slice, keep: NDArray[np.bool_], modules: list[str], x: Mapping[str, Any],
        mask: NDArray[np.uint8], reason: NDArray[Any],
    ) -> None:  # fmt: skip
        """Write the rows `keep` of a piece of primitives to the rows `at`."""
        values, _ = views.view(self.name, {f: x[f] for f in self.families}, self._columns)
        units = compute.units(self.families[0], modules)
        values, mask, reason = values[keep], mask[keep], reason[keep]
        lost = ~np.isfinite(values).all(axis=(1, 2))  # where W's norms have no float32
        if lost.any():
            reason = np.where(lost & (reason == b""), _TOO_LARGE, reason)
            values[lost], mask[lost] = 0, 0
        if not mask.all():
            values = np.where(mask[..., None], values, 0)
        if units != self._units:  # some are not in this shard, or of refused files alone
            known = [i for i, u in enumerate(units) if u in self._position]
            inside = [self._position[units[i]] for i in known]
            whole = np.zeros((len(values), *self._shape), np.float32)
            whole[:, inside] = values[:, known]
            present = np.zeros(whole.shape[:2], np.uint8)
            present[:, inside] = mask[:, known]
            values, mask = whole, present
        self._flags.add(values, mask.astype(bool))
        self.part["x"][at] = values.reshape(len(values), -1)
        self.part["mask"][at] = mask
        self.part["reason"][at] = reason

    def finish(self, options: Mapping[str, Any]) -> Path:
        if self.part.pending:
            self.part["id"][:] = self._id
            primitives.stop_at_bad(self.part, self.target.args.collection, options)
            self.part["flag"][:] = self._flags.result()
            self.part.mark(0)
        return self.part.finish()


def arrays(n: int, units: int, columns: int, id: Any) -> dict[str, Any]:
    """The arrays of a features artefact, by name: shape and dtype."""
    return {
        "x": ((n, columns), "f4"),
        "mask": ((n, units), "u1"),
        "reason": ((n,), f"S{primitives.REASON}"),
        "id": ((n,), id),
        "flag": ((columns,), "u1"),
    }


def _read_shard(
    pending: list[_View],
    paths: Mapping[str, str],
    found: Index,
    rows: NDArray[np.int64],
    readable: NDArray[np.int64],
) -> None:
    """Hand the primitives of one shard to the views, piece by piece."""
    keep = found.refused[readable] == ""
    with ExitStack() as stack:
        files = {f: stack.enter_context(store.open_h5(p)) for f, p in paths.items()}
        facts = {f: store.read_header(p)["facts"] for f, p in paths.items()}
        for f, path in paths.items():
            if facts[f]["ids"] != primitives.ids(found, readable):
                raise ActprobeError(f"{path} is about other LoRAs than the index says; run again")
        for start in range(0, len(readable), _ROWS):
            piece = slice(start, start + _ROWS)
            kept = readable[piece][keep[piece]]
            if not len(kept):
                continue
            first = int(np.searchsorted(rows, kept[0]))
            at = slice(first, first + len(kept))
            x, mask, reason = (
                {f: h5[name][piece] for f, h5 in files.items()} for name in ("x", "mask", "reason")
            )
            for v in pending:
                f = v.families[0]
                v.fill(at, keep[piece], facts[f]["modules"], x, mask[f], reason[f])
