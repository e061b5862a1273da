"""Representations that are no views: the weights themselves, and the recipe control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.lora import collection, compute, controls, primitives
from actprobe.lora.flags import Flags
from actprobe.lora.index import Index
from actprobe.lora.records import FeaturesTarget
from actprobe.lora.rows import reader
from actprobe.lora.viewing import arrays


def make(t: FeaturesTarget, found: Index, options: Mapping[str, Any]) -> Path:
    """Write `recipe_only` or `flat_vec`; returns the sealed part."""
    rows = np.flatnonzero(found.refused == "")
    if t.spec.representation == "recipe_only":
        return _recipe(t, found, rows)
    return _flat(t, found, rows, options)


def _recipe(t: FeaturesTarget, found: Index, rows: NDArray[np.int64]) -> Path:
    x, columns, entries = controls.recipe(found, rows)
    mask = np.ones((len(x), 1), bool)
    flags = Flags(1, len(columns))
    flags.add(x[:, None], mask)
    content: dict[str, Any] = {
        "x": x,
        "mask": mask.astype(np.uint8),
        "reason": np.zeros(len(x), "S1"),
        "id": found.encoded_ids(rows),
        "flag": flags.result(),
    }
    facts = {"units": ["file"], "columns": columns, "entries": entries, "widths": [len(columns)]}
    return store.write_h5(t.path, content, t.record, facts)


def _flat(
    t: FeaturesTarget, found: Index, rows: NDArray[np.int64], options: Mapping[str, Any]
) -> Path:
    """The factors, row-major, module by module; resumed block by block.

    Raises BadInput when a module has more than one rank: then there is no flat vector.
    """
    widths = _widths(t.name, found)
    units = compute.units("order", [found.modules[m] for m in found.used])
    members = {m.id: m for m in collection.members(t.args.collection, options)}
    read, blocks = reader(members, options), primitives.blocks(found, rows)
    text = found.encoded_ids(rows)
    shapes = arrays(len(rows), len(units), sum(widths), text.dtype)
    facts = {"units": units, "columns": ["entry"], "widths": widths}
    with store.Part(t.path, t.record, shapes, len(blocks), facts) as part:
        for n in part.pending:
            at = blocks[n]
            part["x"][at], part["mask"][at], part["reason"][at] = _pack(
                read(found, rows[at]), units, widths
            )
            part["id"][at] = text[at]
            if n == 0:
                part["flag"][:] = 0
            part.mark(n)
        if not part.sealed:
            primitives.stop_at_bad(part, t.args.collection, options)
        return part.finish()


def _widths(name: str, found: Index) -> list[int]:
    """Entries of A and of B of every module."""
    widths: list[int] = []
    kept = np.repeat(found.refused == "", np.diff(found.offsets))
    for m in found.used:
        at = kept & (found["module"] == m)
        ranks = np.unique(found["rank"][at]).tolist()
        if len(ranks) > 1:
            listed = ", ".join(map(str, ranks))
            raise BadInput(f"{name}: one rank is needed, {found.modules[m]} has {listed}")
        widths += [ranks[0] * int(found[side][at].max()) for side in ("d_in", "d_out")]
    return widths


def _pack(
    loras: list[compute.Lora | str], units: list[str], widths: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[Any]]:
    """Flat vectors [n, sum of widths], mask [n, units] and reasons [n] of some LoRAs."""
    starts = np.cumsum([0, *widths])
    x = np.zeros((len(loras), starts[-1]), np.float32)
    mask = np.zeros((len(loras), len(units)), np.uint8)
    reason = np.zeros(len(loras), f"S{primitives.REASON}")
    for i, lora in enumerate(loras):
        if isinstance(lora, str):
            reason[i] = lora.encode()[: primitives.REASON]
            continue
        for u, unit in enumerate(units):
            module, _, side = unit.partition(":")
            if module in lora:
                x[i, starts[u] : starts[u + 1]] = getattr(lora[module], side).ravel()
                mask[i, u] = 1
    return x, mask, reason
