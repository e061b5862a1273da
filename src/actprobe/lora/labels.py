"""Labels, groups and splits of the LoRAs of a collection: of its label table, or of its `tables`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actprobe.base.errors import BadInput
from actprobe.lora import collection

if TYPE_CHECKING:
    from actprobe.lora.index import Index

KINDS = ("label", "group", "split")


def columns(entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str | None]:
    """The columns that an entry of `probes` reads of a collection, by kind."""
    return {k: entry[k] or options.get(k) for k in KINDS}


def read(
    name: str, options: Mapping[str, Any], wanted: Mapping[str, str | None], found: Index
) -> dict[str, dict[str, str]]:
    """Label, group and split by id of the LoRA, as far as columns for them are wanted.

    Raises ConfigError for a label table that cannot be read, BadInput where tables lack a column.
    """
    named = {k: c for k, c in wanted.items() if c}
    if not options.get("tables"):
        rows = collection.labels(name, options, named.values())
        return {id: dict(zip(named, values, strict=True)) for id, values in rows.items()}
    metadata = [json.loads(text) for text in found["metadata"]]
    for c in named.values():
        if not any(c in m for m in metadata):
            raise BadInput(f"{name}: the table has no column {c!r}")
    return {
        id: {k: m.get(c, "") for k, c in named.items()}
        for id, m in zip(found["id"], metadata, strict=True)
    }
