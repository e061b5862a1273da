"""The index of a collection: what its files hold, from headers alone, and which are refused and why.

One row per LoRA in the order of `collection.members`. A file that stands unchanged in an older
index of the collection is taken over from there and not opened.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.lora import classes, collection, labels, tables
from actprobe.lora.adapter import Adapter, read_adapter
from actprobe.lora.bases import mismatches
from actprobe.lora.collection import Member
from actprobe.lora.records import IndexTarget, Rules

log = logging.getLogger(__name__)

_PLAIN = (
    "id", "member", "row", "digest", "reason", "dialect", "dtype", "bytes", "metadata", "extra",
)  # fmt: skip
_MOST_NAMED = 5
_LISTS = {"rank": np.int32, "scale": np.float32, "d_out": np.int32, "d_in": np.int32}


@dataclass(frozen=True)
class Entry:
    """One LoRA: member is the id of the file it stands in, row its row there (tables of LoRAs).

    extra: the tensors beside the LoRA that were left out.
    """

    id: str
    member: str
    row: int
    digest: str
    reason: str = ""
    dialect: str = ""
    dtype: str = ""
    bytes: int = 0
    metadata: str = "{}"
    extra: str = ""
    modules: tuple[str, ...] = ()
    rank: Sequence[int] = ()
    scale: Sequence[float] = ()
    d_out: Sequence[int] = ()
    d_in: Sequence[int] = ()

    @staticmethod
    def of(id: str, member: str, row: int, digest: str, adapter: Adapter) -> Entry:
        """The entry of a LoRA that can be read."""
        m = adapter.modules
        lists = ([getattr(x, name) for x in m.values()] for name in _LISTS)
        text = json.dumps(dict(adapter.metadata), sort_keys=True)
        return Entry(
            id, member, row, digest, "", adapter.dialect, adapter.dtype, adapter.bytes, text,
            _named(adapter.extra), tuple(m), *lists,
        )  # fmt: skip


def _named(tensors: Sequence[str]) -> str:
    """Some tensors in a line."""
    more = f", … ({len(tensors)} tensors)" if len(tensors) > _MOST_NAMED else ""
    return ", ".join(tensors[:_MOST_NAMED]) + more


@dataclass(frozen=True)
class Index:
    """A loaded index of N LoRAs with T modules among them.

    modules: names of all modules, sorted. id, member, digest, reason, mismatch, dialect, dtype,
    metadata, extra: object [N]; row, bytes: int64 [N]. Modules of LoRA i are
    offsets[i]:offsets[i + 1] of module (index into `modules`), rank, scale, d_out, d_in, each [T].
    reason: why the file cannot be read; mismatch: why it does not fit the others. Empty: it does.
    """

    modules: list[str]
    columns: Mapping[str, NDArray[Any]]
    offsets: NDArray[np.int64]
    lists: Mapping[str, NDArray[Any]]

    @staticmethod
    def open(path: str | Path) -> Index:
        """Read an index artefact. Raises BadInput for a tombstone."""
        table = store.read_table(path)
        facts = store.read_header(path)["facts"]
        lists = {n: table[n].combine_chunks() for n in ("module", *_LISTS)}
        columns = {n: table[n].to_numpy() for n in table.column_names if n not in lists}
        offsets = lists["module"].offsets.to_numpy().astype(np.int64)
        values = {n: a.values.to_numpy() for n, a in lists.items()}
        return Index(facts["modules"], columns, offsets, values)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column] if column in self.columns else self.lists[column]

    @cached_property
    def places(self) -> list[str]:
        """`Member.place` of every id: what shards are cut by."""
        return [Member(i, "").place for i in self["id"]]

    @property
    def refused(self) -> NDArray[Any]:
        """Why each LoRA is left out (object [N], empty: it is not)."""
        return np.where(self["reason"] != "", self["reason"], self["mismatch"])

    @cached_property
    def used(self) -> NDArray[np.int64]:
        """Modules (indices, ascending) of the LoRAs that are not left out."""
        return np.unique(self["module"][np.repeat(self.refused == "", np.diff(self.offsets))])

    def encoded_ids(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """The ids of some rows in UTF-8, as HDF5 holds them."""
        return np.strings.encode(self["id"][rows].astype(str), "utf-8")

    def present(self) -> NDArray[np.bool_]:
        """Presence mask [N, modules]."""
        mask = np.zeros((len(self), len(self.modules)), bool)
        mask[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self["module"]] = True
        return mask

    def dense(self, name: str) -> NDArray[np.float64]:
        """A list column as [N, modules], 0 where the module is not there."""
        out = np.zeros((len(self), len(self.modules)))
        out[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self["module"]] = self[name]
        return out


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Build the index of every collection of the batch."""
    memo = DigestMemo(config["cache_dir"])
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        for t in batch.targets:
            options = config["loras"][t.item]
            with out.guard(t):
                out.done(t, build(t, options, memo))
                _tell_small_classes(t, Index.open(store.part_path(t.path)), options)


def build(t: IndexTarget, options: Mapping[str, Any], memo: DigestMemo) -> Path:
    """Write the sealed part of one index. Raises BadInput when `on_bad_file: stop` finds one."""
    found = collection.members(t.item, options)
    identities = collection.digests(found, options["identity"], memo)
    if collection.together(found, identities) != t.spec.files:
        raise ActprobeError(f"loras.{t.item}: files changed since the plan was made; run again")
    old = _previous(t)
    entries: list[Entry] = []
    for m, digest in zip(found, identities, strict=True):
        known = old.get((m.id, digest))
        entries += known if known is not None else read(m, digest, options)
    table, facts = tabulate(entries)
    both = zip(table["reason"].to_pylist(), table["mismatch"].to_pylist(), strict=True)
    refused = [
        f"{e.id}: {own or other}"
        for e, (own, other) in zip(entries, both, strict=True)
        if own or other
    ]
    log.info("%s: %d LoRAs, %d refused, %d modules", t.item, len(entries), len(refused),
             len(facts["modules"]))  # fmt: skip
    for line in refused[:20]:
        log.warning("refused %s", line)
    if extra := [e for e in entries if e.extra and not e.reason]:
        log.warning("%s: %d LoRAs are read without tensors beside them, e.g. %s without %s", t.item,
                    len(extra), extra[0].id, extra[0].extra)  # fmt: skip
    stop(t.item, refused, options)
    if len(refused) == len(entries):
        raise BadInput(f"loras.{t.item}: no file can be used; the first is {refused[0]}")
    return store.write_table(t.path, table, t.record, facts)


def _tell_small_classes(t: IndexTarget, found: Index, options: Mapping[str, Any]) -> None:
    """Log which probes cannot use the classes that are left, before anything is computed for them."""
    for told in t.args.told:
        said = labels.read(t.item, options, told.columns, found)
        rows = [said[i] for i in found["id"][found.refused == ""] if said.get(i, {}).get("label")]
        rule = rows, told.least, told.rule
        if why := classes.problem(*rule) or classes.doubt(*rule):
            log.warning("%s: of the LoRAs of %s that can be used, %s", told.where, t.item, why)


def stop(name: str, refused: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raise BadInput under `on_bad_file: stop` when files of a collection cannot be used."""
    if refused and options["on_bad_file"] == "stop":
        listed = "\n  ".join(refused[:20])
        raise BadInput(f"loras.{name}: {len(refused)} files cannot be used:\n  {listed}")


def read(m: Member, digest: str, options: Mapping[str, Any]) -> list[Entry]:
    """The entries of one file: one LoRA, or the rows of a table; a refused file has a reason."""
    if digest.startswith(collection.UNREADABLE):
        return [Entry(m.id, m.id, 0, digest, reason=digest.removeprefix(collection.UNREADABLE))]
    try:
        if options.get("tables"):
            return [
                Entry(id, m.id, row, digest, reason=found)
                if isinstance(found, str)
                else Entry.of(id, m.id, row, digest, found)
                for row, (id, found) in enumerate(tables.describe(m, options))
            ]
        adapter = read_adapter(m.path, m.config, Rules.of(options))
        return [Entry.of(m.id, m.id, 0, digest, adapter)]
    except BadInput as e:
        return [Entry(m.id, m.id, 0, digest, reason=str(e).removeprefix(f"{m.path}: "))]


def tabulate(entries: Sequence[Entry]) -> tuple[pa.Table, dict[str, Any]]:
    """The index table and its facts (module names, number of LoRAs)."""
    modules = sorted({n for e in {e.modules for e in entries} for n in e})
    position = {n: i for i, n in enumerate(modules)}
    at = {e: np.array([position[n] for n in e], np.int32) for e in {e.modules for e in entries}}
    mismatch = mismatches(entries)
    plain = {name: [getattr(e, name) for e in entries] for name in _PLAIN}
    offsets = np.cumsum([0, *(len(e.modules) for e in entries)], dtype=np.int32)

    def joined(values: Iterable[Any], dtype: Any) -> pa.Array:
        flat = np.concatenate([np.asarray(v, dtype) for v in values] or [np.empty(0, dtype)])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))

    lists = {"module": joined((at[e.modules] for e in entries), np.int32)}
    lists |= {n: joined((getattr(e, n) for e in entries), kind) for n, kind in _LISTS.items()}
    table = pa.table({**plain, "mismatch": mismatch, **lists})
    return table, {"modules": modules, "n": len(entries)}


def _previous(t: IndexTarget) -> dict[tuple[str, str], list[Entry]]:
    """Entries by member and digest from the newest older index with the same rules."""
    folder, name = Path(t.path).parent, Path(t.path).name.rsplit(".", 2)[0]
    others = sorted(folder.glob(f"{name}.*.parquet"), key=lambda p: -p.stat().st_mtime)
    own = _reading(t.record)
    for path in others:
        try:
            header = store.quick_check(path)
            if not header["bad"] and _reading(header["spec"]) == own:
                return _entries(Index.open(path))
        except (Damaged, OSError):
            continue
    return {}


def _reading(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of the spec of an index is not about the files that there are."""
    return {k: v for k, v in spec.items() if k not in ("files", "n")}


def _entries(index: Index) -> dict[tuple[str, str], list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    names: dict[bytes, tuple[str, ...]] = {}
    for i, values in enumerate(zip(*(index[n].tolist() for n in _PLAIN), strict=True)):
        s = slice(index.offsets[i], index.offsets[i + 1])
        at = index["module"][s]
        key = at.tobytes()
        if key not in names:
            names[key] = tuple(index.modules[j] for j in at)
        content: tuple[Any, ...] = (*values, names[key], *(index[n][s] for n in _LISTS))
        entry = Entry(*content)
        found[entry.member, entry.digest].append(entry)
    return found
