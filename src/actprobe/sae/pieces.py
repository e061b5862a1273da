"""Encoded tiles of one dataset on their way into an artefact: an append-only, checked log.

A tile is at most ROWS x COLUMNS entries. The tile grid is fixed by these constants alone: a
product's rounding may depend on its shape, so equal tiles make equal bits, whatever memory and
whatever other datasets are encoded together. Each record carries a checksum, and records of a row
tile come in the order of latents; after a kill the intact ones are taken over.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from actprobe.cache.store.files import out_of_space

ROWS = 1024
COLUMNS = 4096
WAITING = 32 << 20  # bytes of encoded tiles that may wait to be written, of all logs together

_MAGIC = b"actprobe-tiles-1"
_RECORD = struct.Struct("<4I")  # row tile, column tile, entries, CRC-32 of these three and the data

Tile = tuple[NDArray[np.uint32], NDArray[np.float32]]


def tile_width(column: int, d_sae: int) -> int:
    """Latents in a column tile: COLUMNS, fewer in the last one."""
    return min(COLUMNS, d_sae - column * COLUMNS)


def place(
    flat: NDArray[np.uint32], column: int, d_sae: int
) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Row within the tile, and latent, of entries of a column tile."""
    row, offset = np.divmod(flat, np.uint32(tile_width(column, d_sae)))
    return row, offset.astype(np.int32) + np.int32(column * COLUMNS)


class Pieces:
    """The log at `path`; one begun for another key is begun anew.

    key: 64 hex digits of the artefact's key. The file is open only while it is used: a job has as
    many logs as datasets.
    """

    def __init__(self, path: str | Path, key: str):
        self.path = Path(path)
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._waiting: list[bytes] = []
        with open(self.path, "a+b") as f:
            self._end = self._recover(f, key)

    def _recover(self, f: BinaryIO, key: str) -> int:
        """Index the intact records; cut off what follows them. Returns where the next one goes."""
        head = _MAGIC + key.encode()
        f.seek(0)
        end = 0
        if f.read(len(head)) == head:
            end = len(head)
            while (record := _read(f, end)) is not None:
                row, column, flat, _ = record
                if column != len(self._places[row]):
                    break
                self._places[row].append((end, len(flat)))
                end += _RECORD.size + 8 * len(flat)
        f.truncate(end)
        if not end:
            f.write(head)
            end = len(head)
        return end

    def done(self, row: int) -> int:
        """How many column tiles of a row tile are in the log."""
        return len(self._places[row])

    def add(self, row: int, flat: NDArray[np.uint32], value: NDArray[np.float32]) -> int:
        """Append the next column tile of a row tile; written by `flush`. Returns its bytes.

        flat: places in the tile, row-major, ascending.
        """
        data = flat.astype("<u4").tobytes() + value.astype("<f4").tobytes()
        head = struct.pack("<3I", row, self.done(row), len(flat))
        self._waiting += [head, struct.pack("<I", zlib.crc32(data, zlib.crc32(head))), data]
        self._places[row].append((self._end, len(flat)))
        self._end += _RECORD.size + len(data)
        return _RECORD.size + len(data)

    def flush(self, safe: bool = False) -> None:
        """Hand waiting records to the system, which survives a kill; `safe`: to the disk."""
        if not (self._waiting or safe):
            return
        with out_of_space(self.path, self._end), open(self.path, "ab") as f:
            f.writelines(self._waiting)
            self._waiting = []
            f.flush()
            if safe:
                os.fsync(f.fileno())

    def entries(self, row: int) -> int:
        """Entries of a row tile."""
        return sum(n for _, n in self._places[row])

    def tiles(self, row: int) -> Iterator[Tile]:
        """The column tiles of a row tile, in order."""
        with open(self.path, "rb") as f:
            for at, _ in self._places[row]:
                record = _read(f, at)
                assert record is not None, f"{self.path}: changed while it was used"
                yield record[2], record[3]


def _read(f: BinaryIO, at: int) -> tuple[int, int, NDArray[np.uint32], NDArray[np.float32]] | None:
    """The record at an offset; None when it is not whole."""
    f.seek(at)
    head = f.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    row, column, n, crc = _RECORD.unpack(head)
    data = f.read(8 * n)
    if len(data) < 8 * n or zlib.crc32(data, zlib.crc32(head[:12])) != crc:
        return None
    return row, column, np.frombuffer(data, "<u4", n), np.frombuffer(data, "<f4", n, 4 * n)
