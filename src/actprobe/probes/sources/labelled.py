"""Labels of LoRAs, as a fit reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import lora
from actprobe.base import keys
from actprobe.base.errors import BadInput
from actprobe.probes.data import Labels
from actprobe.probes.kinds import kind_of_classes
from actprobe.probes.records import FeatureArgs


def read(args: FeatureArgs, content: Any, rule: Mapping[str, Any], ids: NDArray[Any]) -> Labels:
    """Those of the LoRAs `ids` [n] that have a label, in classes of no fewer than are asked for.

    args: of the target; content: as it was planned; rule: `split` of the protocol. Raises
    BadInput where none is left, or a class cannot be split, ActprobeError where the label table changed
    since.
    """
    found = lora.Index.open(args.index)
    columns, table, least = args.columns, args.table, args.least
    said = lora.labels.read(args.collection, table, columns, found)
    if not table.get("tables"):
        rows = {id: list(row.values()) for id, row in said.items()}
        digest = lora.labels_digest([k for k, c in columns.items() if c], rows, found["id"])
        keys.require_unchanged(digest, content, table["labels"])
    usable = [said[i] for i in ids if said.get(i, {}).get("label")]
    if not usable:
        raise BadInput("none of the LoRAs has a label")
    if why := lora.classes.problem(usable, least, rule):
        raise BadInput(f"of the LoRAs that can be used, {why}")
    small = lora.classes.smaller(usable, least).keys() | {""}
    row = np.array([n for n, i in enumerate(ids) if said.get(i, {}).get("label", "") not in small])
    content_of = dict(zip(found["id"], _contents(found, bool(table.get("tables"))), strict=True))
    return _labels(row, ids[row], [said[i] for i in ids[row]], content_of, len(ids))


def _contents(found: lora.Index, of_tables: bool) -> list[str]:
    """What tells equal LoRAs: digests of files, or of rows of tables."""
    digests = found["digest"].tolist()
    if not of_tables:
        return digests
    rows = zip(digests, found["row"].tolist(), strict=True)
    return [keys.spec_key({"table": d, "row": r}) for d, r in rows]


def _labels(
    row: NDArray[np.int64],
    ids: NDArray[Any],
    said: list[dict[str, str]],
    content: Mapping[str, str],
    n_rows: int,
) -> Labels:
    names, y = np.unique([s["label"] for s in said], return_inverse=True)
    classes = tuple(names.tolist())
    group = named = None
    if "group" in said[0]:  # a LoRA without a group is one of its own
        named = np.array([s["group"] or f"\0{i}" for i, s in enumerate(said)])
        group = np.unique(named, return_inverse=True)[1]
    split = np.array([s["split"] for s in said]) if "split" in said[0] else None
    return Labels(
        row=row,
        y=y,
        digest=np.array([content[i] for i in ids], "S64"),
        component=np.arange(len(row)) if group is None else group,
        group=group,
        group_name=named,
        split=split,
        classes=classes,
        n_rows=n_rows,
        kind=kind_of_classes(classes),
    )
