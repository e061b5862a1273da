"""What was written to an unfinished HDF5 file, with checksums: how a resumed file is trusted.

A line of the journal, appended after the data were flushed:

    {crc of the rest, 8 hex digits} {"units":[...],"wrote":{array:[[rows...],crc],...}}

rows are the ends of half-open runs [a0, b0, a1, b1, ...] along the first axis, in the order in
which they were written; crc is the CRC-32 of their bytes in that order. The journal of a file that
was killed ends with a whole line or a torn one, which counts for nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_BLOCK = 1 << 25  # bytes read at a time


class Journal:
    """The journal beside an unfinished file."""

    def __init__(self, work: Path):
        self._path = Path(f"{work}.journal")
        self._wrote: dict[str, list[Any]] = {}

    def remove(self) -> None:
        """Forget everything."""
        self._path.unlink(missing_ok=True)

    def wrote(self, name: str, runs: Sequence[int], values: np.ndarray) -> None:
        """Note these values of an array, contiguous and in its dtype, for the next mark."""
        entry = self._wrote.setdefault(name, [[], 0])
        for begin, end in zip(runs[::2], runs[1::2], strict=True):
            if entry[0] and entry[0][-1] == begin:
                entry[0][-1] = end
            else:
                entry[0] += [begin, end]
        entry[1] = zlib.crc32(_bytes(values), entry[1])

    def mark(self, units: Iterable[int]) -> None:
        """Say that these units are done with what was written since the last mark."""
        text = json.dumps({"units": sorted(units), "wrote": self._wrote}, separators=(",", ":"))
        self._wrote = {}
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(f"{zlib.crc32(text.encode()):08x} {text}\n")

    def resume(self, file: h5py.File) -> set[int]:
        """The units whose bytes in the file are those that were written.

        A later line about the same rows counts, not an earlier one.
        """
        done: set[int] = set()
        for entry in self._lines():
            whole = all(
                name in file and _crc(file[name], runs) == crc
                for name, (runs, crc) in entry["wrote"].items()
            )
            done = done.union(entry["units"]) if whole else done.difference(entry["units"])
        return done

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return
        for line in lines:
            crc, _, text = line.partition(" ")
            if crc == f"{zlib.crc32(text.encode()):08x}":
                yield json.loads(text)


def units_done(work: str | Path) -> set[int]:
    """The units that the journal of an unfinished file names, without a look at their bytes."""
    return {u for entry in Journal(Path(work))._lines() for u in entry["units"]}


def _bytes(values: np.ndarray) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _crc(data: h5py.Dataset, runs: Sequence[int]) -> int:
    if data.shape == ():
        return zlib.crc32(data[()].tobytes())
    step = max(1, _BLOCK // max(1, data.dtype.itemsize * int(np.prod(data.shape[1:]))))
    crc = 0
    for begin, end in zip(runs[::2], runs[1::2], strict=True):
        for at in range(begin, end, step):
            block = np.ascontiguousarray(data[at : min(at + step, end)])
            crc = zlib.crc32(_bytes(block), crc)
    return crc


class Writer:
    """An array of an unfinished file; what is assigned to rows of it goes into the journal."""

    def __init__(self, data: h5py.Dataset, journal: Journal):
        self._data, self._journal = data, journal
        self._name = data.name.lstrip("/")
        self.shape: tuple[int, ...] = data.shape
        self.dtype: np.dtype = data.dtype

    def __getitem__(self, rows: Any) -> Any:
        return self._data[rows]

    def __setitem__(self, rows: Any, values: Any) -> None:
        if not self.shape:
            value = np.asarray(values, self.dtype)
            self._data[()] = value
            self._journal.wrote(self._name, [], value.reshape(1))
            return
        runs = _runs(rows, self.shape[0])
        if isinstance(rows, (int, np.integer)):
            values = np.asarray(values)[None]
        n = sum(runs[1::2]) - sum(runs[::2])
        whole = np.ascontiguousarray(np.broadcast_to(values, (n, *self.shape[1:])), self.dtype)
        self._data[slice(*runs) if len(runs) == 2 else rows] = whole
        self._journal.wrote(self._name, runs, whole)


def _runs(rows: Any, n: int) -> list[int]:
    """Rows of an array of n as ends of runs: `...`, a slice, one row, or ascending rows."""
    if rows is Ellipsis:
        return [0, n]
    if isinstance(rows, slice):
        begin, end, step = rows.indices(n)
        assert step == 1, "rows are written in runs"
        return [begin, max(begin, end)]
    if isinstance(rows, (int, np.integer)):
        return [int(rows), int(rows) + 1]
    chosen = np.asarray(rows)
    if not len(chosen):
        return []
    breaks = np.flatnonzero(np.diff(chosen) != 1)
    begins = chosen[np.concatenate([[0], breaks + 1])]
    ends = chosen[np.concatenate([breaks, [len(chosen) - 1]])] + 1
    return np.stack([begins, ends], axis=1).ravel().tolist()
