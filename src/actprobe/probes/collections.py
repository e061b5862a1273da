"""Labelled LoRAs while planning: which columns a probe reads, and what is known of them; light."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actprobe import lora
from actprobe.base.errors import ConfigError

log = logging.getLogger(__name__)

_READ = ("tables", "labels", "id")  # of an entry of `loras`: where its labels are


@dataclass(frozen=True)
class Labelling:
    """What an entry of `probes` reads of a collection.

    name: of the labelled collection in the results; columns: by kind ("label", "group", "split");
    least: `min_per_class`; content: what identifies the labels in keys.
    """

    name: str
    columns: Mapping[str, str | None]
    least: int | None
    content: Any

    def args(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a job needs to read the labels again."""
        told = {k: options.get(k) for k in _READ}
        return {"columns": dict(self.columns), "least": self.least, "table": told}


def planned(
    collection: lora.Collection, entry: Mapping[str, Any], rule: Mapping[str, Any], where: str
) -> Labelling:
    """What an entry reads of a collection.

    Raises ConfigError where it cannot be probed, as far as that is known without reading a file:
    classes that are too small now do not grow when files turn out to be refused.
    """
    options, least = collection.options, entry["min_per_class"]
    columns = lora.labels.columns(entry, options)
    own = lora.labels.columns(dict.fromkeys(lora.labels.KINDS), options)
    name = collection.name
    if columns["label"] != own["label"]:
        name += f":{columns['label']}"
    for kind in ("group", "split"):
        if columns[kind] != own[kind]:
            name += f":{kind}={columns[kind]}"
    content = _content(collection, columns, least, rule, where)
    collection.tell(lora.Told(where=where, columns=columns, least=least, rule=rule))
    return Labelling(name, columns, least, content)


def _content(
    c: lora.Collection,
    columns: Mapping[str, str | None],
    least: int | None,
    rule: Mapping[str, Any],
    where: str,
) -> Any:
    """A digest of the columns that are read; of tables, whose rows are not read yet, their own."""
    if c.options.get("tables"):
        return {"tables": c.files, **columns}
    rows = lora.label_rows(c.name, c.options, [v for v in columns.values() if v])
    if not any(m.id in rows for m in c.members):
        raise ConfigError(
            f"loras.{c.name}.labels: no row of {c.options['labels']} is about one of the files; "
            f"the files are called {c.members[0].id!r}, …, the rows {next(iter(rows), '')!r}, …"
        )
    missing = [m.id for m in c.members if not rows.get(m.id, [""])[0]]
    if missing:
        log.warning("%s: %d of %d files of %s have no %s and are left out, e.g. %s", where,
                    len(missing), len(c.members), c.name, columns["label"], missing[0])  # fmt: skip
    used = [k for k, v in columns.items() if v]
    labelled = [dict(zip(used, rows[m.id], strict=True)) for m in c.members if m.id in rows]
    if why := lora.classes.problem(labelled, least, rule):
        raise ConfigError(f"{where}: {c.name}: {why}")
    if why := lora.classes.doubt(labelled, least, rule):
        log.warning("%s: %s: %s", where, c.name, why)
    if few := lora.classes.smaller(labelled, least):
        log.warning("%s: %d classes of %s with fewer than %d LoRAs are left out, e.g. %s",
                    where, len(few), c.name, least, min(few))  # fmt: skip
    return lora.labels_digest(used, rows, [m.id for m in c.members])
