"""Representations of a collection: views of primitives, packed weights, and the controls.

One file per collection and representation: `x` float32 [N, p], rows in the order of the index (the
LoRAs that are not refused), columns unit by unit; `mask` [N, units]; `id` [N]; `reason` [N] (why a
row has no numbers); `flag` [p] (1: constant, 2: repeats another column of its unit).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import store
from actprobe.errors import ActprobeError, BadInput
from actprobe.jobs import Outcome
from actprobe.lora import collection, compute, controls, index, names, primitives, views
from actprobe.lora.catalog import REPRESENTATIONS
from actprobe.lora.index import Index
from actprobe.plan import Batch, Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
_BAND = 1 << 26  # numbers that are held at once when columns are looked at


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
            f["id"][:].astype("U").astype(object)[fine],
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
    """Make every representation of the batch."""
    loaded: dict[str, Index] = {}
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        for t in batch.targets:
            path, options = t.args["index"], config["loras"][t.args["collection"]]
            with out.guard(t):
                if path not in loaded:
                    loaded[path] = index.load(path)
                out.done(t, _make(t, loaded[path], options))
                log.info("made %s", t.name)


def _make(t: Target, found: Index, options: Mapping[str, Any]) -> Path:
    """Write one representation piece by piece; a run that was killed goes on with the next one."""
    rows = np.flatnonzero(found.refused == "")
    match t.args["representation"]:
        case "recipe_only":
            return _recipe(t, found, rows)
        case "flat_vec":
            layout, pieces = _packed(t, found, rows, options)
        case name:
            layout, pieces = _viewed(t, name, found, rows, options)
    units, columns, widths = layout
    text = found["id"][rows].astype("S")
    shape = len(rows), sum(widths)
    arrays = {
        "x": (shape, "f4"),
        "mask": ((len(rows), len(units)), "u1"),
        "reason": (rows.shape, f"S{primitives.REASON}"),
        "id": (rows.shape, text.dtype),
        "flag": ((shape[1],), "u1"),
    }
    facts = {"units": units, "columns": columns, "widths": widths}
    with store.Part(t.path, t.spec, arrays, len(pieces) + 1, facts) as part:
        for n in part.pending:
            if n < len(pieces):
                for at, content in pieces[n]():
                    for name, values in content.items():
                        part[name][at] = values
            else:
                part["id"][:] = text
                part["flag"][:] = _flags(part["x"], widths)
            part.mark(n)
        return part.finish()


Layout = tuple[list[str], list[str], list[int]]
Rows = tuple[slice, dict[str, NDArray[Any]]]  # where they stand, and the arrays by name
Piece = Callable[[], Iterable[Rows]]


def _viewed(
    t: Target, name: str, found: Index, rows: NDArray[np.int64], options: Mapping[str, Any]
) -> tuple[Layout, list[Piece]]:
    """One piece, read shard by shard: how many shards there are leaves no trace in the file."""
    families = REPRESENTATIONS[name].families
    sizes = compute.Sizes(options["sketch"]["product"], options["sketch"]["projector"])
    columns = {f: compute.columns(f, sizes) for f in families}
    empty = {f: np.zeros((0, 1, len(c)), np.float32) for f, c in columns.items()}
    names = list(views.view(name, empty, columns)[1])
    units = compute.units(families[0], found.modules)
    position = {u: i for i, u in enumerate(units)}

    def view(shard: str, paths: list[str]) -> Rows:
        readable = primitives.shard_rows(found, shard, bool(options.get("tables")))
        keep = found.refused[readable] == ""
        x, mask, reason, shard_units = _shard(paths, families, primitives.ids(found, readable))
        values, _ = views.view(name, x, columns)
        n, at = int(keep.sum()), [position[u] for u in shard_units]
        whole = np.zeros((n, len(units), len(names)), np.float32)
        whole[:, at] = np.where(mask[keep][..., None], values[keep], 0)
        present = np.zeros((n, len(units)), np.uint8)
        present[:, at] = mask[keep]
        start = int(np.searchsorted(rows, readable[keep][0])) if n else 0
        content = {"x": whole.reshape(n, -1), "mask": present, "reason": reason[keep]}
        return slice(start, start + n), content

    layout = units, names, [len(names)] * len(units)
    return layout, [lambda: (view(shard, paths) for shard, paths in t.args["shards"])]


def _shard(
    paths: list[str], families: tuple[str, ...], ids: str
) -> tuple[dict[str, Floats], NDArray[np.uint8], NDArray[Any], list[str]]:
    """Primitives of one shard: x by family, mask, reasons, units."""
    x = {}
    for path, family in zip(paths, families, strict=True):
        with store.open_h5(path) as f:
            facts = store.read_header(path)["facts"]
            if facts["ids"] != ids:
                raise ActprobeError(f"{path} is about other LoRAs than the index says; run again")
            x[family] = f["x"][:]
            mask, reason = f["mask"][:], f["reason"][:]
    return x, mask, reason, compute.units(families[0], facts["modules"])


def _packed(
    t: Target, found: Index, rows: NDArray[np.int64], options: Mapping[str, Any]
) -> tuple[Layout, list[Piece]]:
    """`flat_vec`: the factors themselves, row-major, module by module. Pieces are blocks of files.

    Raises BadInput when a module has more than one rank: then there is no flat vector.
    """
    widths: list[int] = []
    kept = np.repeat(found.refused == "", np.diff(found.offsets))
    for m, name in enumerate(found.modules):
        at = kept & (found["module"] == m)
        sizes = {n: found[n][at] for n in ("rank", "d_in", "d_out")}
        if len(np.unique(sizes["rank"])) > 1:
            ranks = ", ".join(map(str, np.unique(sizes["rank"])))
            raise BadInput(f"{t.name}: one rank is needed, {name} has {ranks}")
        rank = int(sizes["rank"][0])
        widths += [rank * int(sizes["d_in"][0]), int(sizes["d_out"][0]) * rank]
    units = compute.units("order", found.modules)
    start = dict(zip(units, np.cumsum([0, *widths]).tolist(), strict=False))
    position = {u: i for i, u in enumerate(units)}
    members = {m.id: m for m in collection.members(t.args["collection"], options)}
    read = primitives.reader(members, options)

    def pack(at: slice) -> Rows:
        loras = read(found, rows[at])
        x = np.zeros((len(loras), sum(widths)), np.float32)
        mask = np.zeros((len(loras), len(units)), np.uint8)
        reason = np.zeros(len(loras), f"S{primitives.REASON}")
        for i, lora in enumerate(loras):
            if isinstance(lora, str):
                reason[i] = lora.encode()
                continue
            for module, factors in lora.items():
                for side in ("down", "up"):
                    unit, values = f"{module}:{side}", getattr(factors, side).ravel()
                    x[i, start[unit] : start[unit] + len(values)] = values
                    mask[i, position[unit]] = 1
        return at, {"x": x, "mask": mask, "reason": reason}

    pieces: list[Piece] = [lambda b=b: [pack(b)] for b in primitives.blocks(found, rows)]
    return (units, ["entry"], widths), pieces


def _recipe(t: Target, found: Index, rows: NDArray[np.int64]) -> Path:
    x, columns = controls.recipe(found, rows)
    arrays = {
        "x": x,
        "mask": np.ones((len(x), 1), np.uint8),
        "reason": np.zeros(len(x), "S1"),
        "id": found["id"][rows].astype("S"),
        "flag": views.flags(x),
    }
    facts = {"units": ["file"], "columns": columns, "widths": [len(columns)]}
    return store.write_h5(t.path, arrays, t.spec, facts)


def _flags(x: Any, widths: list[int]) -> NDArray[np.uint8]:
    """`views.flags` unit by unit of an array [N, p] on disk, in bands of columns."""
    step = max(max(widths), _BAND // max(x.shape[0], 1))
    found, start = np.zeros(x.shape[1], np.uint8), 0
    ends = np.cumsum(widths)
    while start < x.shape[1]:
        stop = int(ends[np.searchsorted(ends, min(start + step, x.shape[1]), "right") - 1])
        band = x[:, start:stop]
        inside = ends[(ends > start) & (ends <= stop)]
        for low, high in zip([start, *inside[:-1]], inside, strict=True):
            found[low:high] = views.flags(band[:, low - start : high - start])
        start = stop
    return found
