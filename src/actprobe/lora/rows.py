"""Reading the LoRAs of an index, row by row, as they were when the plan was made."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.lora import collection, tables
from actprobe.lora.collection import Member
from actprobe.lora.compute import Lora
from actprobe.lora.index import Index
from actprobe.lora.read import read_lora
from actprobe.lora.records import Rules

log = logging.getLogger(__name__)

Reader = Callable[[Index, NDArray[np.int64]], list[Lora | str]]


def reader(members: Mapping[str, Member], options: Mapping[str, Any]) -> Reader:
    """What reads rows of the index: factors, or the reason why there are none. Rows must ascend.

    A reason is something that stands in the file. Where a file is gone or not the one that was
    indexed, reading raises ActprobeError: nothing may be kept under the key of the other one.
    """
    read = _Tables(members, options) if options.get("tables") else _Files(members, options)

    def told(found: Index, rows: NDArray[np.int64]) -> list[Lora | str]:
        loras = read(found, rows)
        for id, lora in zip(found["id"][rows], loras, strict=True):
            if isinstance(lora, str):
                log.warning("left out %s: %s", id, lora)
        return loras

    return told


def _member(members: Mapping[str, Member], id: str) -> Member:
    if id not in members:
        raise ActprobeError(f"{id}: the file is gone since the plan was made; run again")
    return members[id]


class _Files:
    """Reads LoRAs that are files, and compares each with its digest while it does."""

    def __init__(self, members: Mapping[str, Member], options: Mapping[str, Any]):
        self._members, self._rules = members, Rules.of(options)
        self._identity = options["identity"]

    def __call__(self, found: Index, rows: NDArray[np.int64]) -> list[Lora | str]:
        return [self._read(found, i) for i in rows]

    def _read(self, found: Index, i: int) -> Lora | str:
        m = _member(self._members, found["id"][i])
        try:
            content = read_lora(m, self._rules, (self._identity, found["digest"][i]))
        except BadInput as e:
            return str(e).removeprefix(f"{m.path}: ")
        at = found["module"][found.offsets[i] : found.offsets[i + 1]]
        if list(content.adapter.modules) != [found.modules[j] for j in at]:
            raise ActprobeError(f"{m.path}: its modules are not those of the index; run again")
        return content.factors


class _Tables:
    """Reads LoRAs that are rows of tables, forward only; each table is digested before it is read."""

    def __init__(self, members: Mapping[str, Member], options: Mapping[str, Any]):
        self._members, self._identity = members, options["identity"]
        self._open: dict[str, Iterator[Lora | str]] = {}

    def __call__(self, found: Index, rows: NDArray[np.int64]) -> list[Lora | str]:
        loras = []
        for i in rows:
            member = found["member"][i]
            if member not in self._open:
                m = _member(self._members, member)
                self._open = {member: self._rows(m, found["digest"][i])}
                self._next = 0
            while self._next < found["row"][i]:
                next(self._open[member])
                self._next += 1
            loras.append(next(self._open[member]))
            self._next += 1
        return loras

    def _rows(self, m: Member, digest: str) -> Iterator[Lora | str]:
        try:
            before = os.stat(m.path)
            content = self._identity == "content"
            known = keys.file_sha256(m.path) if content else collection.stat_digest(before)
            if known != digest:
                raise ActprobeError(f"{m.path} was changed after the plan was made; run again")
            for piece in tables.read(m):
                after = os.stat(m.path)
                if (after.st_mtime_ns, after.st_ctime_ns) != (
                    before.st_mtime_ns,
                    before.st_ctime_ns,
                ):
                    raise ActprobeError(f"{m.path} was changed while it was read; run again")
                yield from piece
        except OSError as e:
            raise ActprobeError(
                f"{m.path} can no longer be read: {e.strerror}; run again"
            ) from None
