"""The tokens of a dump: lists of strings or ids, or arrays of ids, in one file or one per chunk.

What is kept are int32 ids, in a temporary file, and one copy of each distinct string. Padding (an
`attention_mask` of 0, ids -1 and -100) is told apart: it is no token.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.dumps.token_lists import PADDING, list_of, windows
from actprobe.files import Array, Opened, is_integer, open_arrays

_NAMES = ("input_ids", "token_ids", "tokens", "ids")
_MASK = "attention_mask"
_BLOCK = 1 << 22  # ids in memory


@dataclass(frozen=True)
class Tokens:
    """Tokens of every row of a dump.

    ids: int32 [T], memory-mapped, without padding; offsets: int64 [N+1], row i has
    ids[offsets[i]:offsets[i+1]]; places: int64 [N+1], the same counted with padding; kept: bool [P],
    memory-mapped, which of all places hold a token (None: all); vocabulary: the string of each id,
    or None when the dump holds ids of the model's tokenizer; files: rows of each file; cut: False
    when a file is one long row of ids that says nothing about where texts begin.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    places: NDArray[np.int64]
    kept: NDArray[np.bool_] | None
    vocabulary: list[str] | None
    files: tuple[int, ...]
    cut: bool

    def by(self, length: int) -> Tokens:
        """Ids that are not cut, cut every `length` of them, where that divides each file's."""
        if self.cut or self.kept is not None or (np.diff(self.places) % length).any():
            return self
        offsets = np.arange(0, self.offsets[-1] + 1, length)
        rows = tuple((np.diff(self.places) // length).tolist())
        return replace(self, offsets=offsets, places=offsets, files=rows, cut=True)


@contextmanager
def open_tokens(files: Sequence[tuple[str | Path, str]], folder: str | Path) -> Iterator[Tokens]:
    """Tokens of some files (path and extension), one after the other.

    `folder` gets temporary files of 5 bytes per token. Raises BadInput naming the file.
    """
    with tempfile.TemporaryFile(dir=folder) as ids, tempfile.TemporaryFile(dir=folder) as kept:
        spill = _Spill(ids, kept)
        strings: dict[bytes, int] = {}
        kinds: set[str] = set()
        rows, cut = [], True
        for name, kind in files:
            path, before = Path(name), len(spill.lengths)
            listed = list_of(path) if kind in ("pt", "pth") else None
            if listed is None:
                with open_arrays(path, kind) as found:
                    cut &= _arrays(found, spill)
                kinds.add("ids")
            else:
                for window in windows(path, strings, kinds):
                    row = np.array(window, np.int32)[None]
                    spill.add(row, row >= 0)
                cut &= listed == "lists"
            if len(kinds) > 1:
                raise BadInput(f"{path}: strings in one file of tokens, ids in another")
            rows.append(len(spill.lengths) - before)
        offsets, places = spill.ends(spill.lengths), spill.ends(spill.places)
        if not offsets[-1]:
            raise BadInput(f"{', '.join(str(p) for p, _ in files)}: holds no tokens")
        ids.flush()
        kept.flush()
        padded = places[-1] > offsets[-1]
        yield Tokens(
            np.memmap(ids, np.int32, "r"),
            offsets,
            places,
            np.memmap(kept, np.bool_, "r") if padded else None,
            [s.decode("utf-8", errors="replace") for s in strings] or None,
            tuple(rows),
            cut,
        )


class _Spill:
    """Temporary files that ids, and what is no padding, go to."""

    def __init__(self, ids: IO[bytes], kept: IO[bytes]):
        self._ids, self._kept = ids, kept
        self.lengths, self.places = array("q"), array("q")  # of rows, without and with padding

    def add(self, ids: NDArray[Any], kept: NDArray[np.bool_]) -> None:
        """Rows of equal length [n, L]."""
        ids[kept].astype(np.int32).tofile(self._ids)
        kept.tofile(self._kept)
        self.lengths.frombytes(kept.sum(axis=1, dtype=np.int64).tobytes())
        self.places.frombytes(np.full(len(ids), ids.shape[1], np.int64).tobytes())

    @staticmethod
    def ends(lengths: array[int]) -> NDArray[np.int64]:
        """Where each row begins, and the last one ends."""
        return np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int64))]).astype(np.int64)


def _arrays(found: Opened, spill: _Spill) -> bool:
    """Read ids [rows, length], [length] or a list of [length]; False when they are one row [length].

    An array `attention_mask` of the same shape says which are tokens.
    """
    mask = found.arrays.get(_MASK)
    ids = {n: a for n, a in found.arrays.items() if is_integer(a.dtype) and n != _MASK}
    named = next((n for n in _NAMES if n in ids), None)
    chosen = [ids[named]] if named else list(ids.values())
    listed = [str(i) for i in range(len(ids))] == list(ids)
    if not chosen or (len(chosen) > 1 and not listed):
        raise BadInput(
            f"{found.file}: arrays {found.told}; expected integers [rows, length], or `input_ids` "
            "and `attention_mask`"
        )
    for a in chosen:
        if len(a.shape) not in (1, 2) or (len(chosen) > 1 and len(a.shape) == 2 != a.shape[0] + 1):
            raise BadInput(f"{found.file}: {a.shape} {a.dtype}, expected integers [rows, length]")
        _rows(found.file, a, mask if len(chosen) == 1 else None, spill)
    return len(chosen) > 1 or len(chosen[0].shape) == 2


def _rows(file: str, a: Array, mask: Array | None, spill: _Spill) -> None:
    if mask is not None and mask.shape != a.shape:
        raise BadInput(f"{file}: ids {a.shape}, but their attention_mask {mask.shape}")
    length = a.shape[-1]
    if not length:
        raise BadInput(f"{file}: holds no tokens")
    flat = len(a.shape) == 1
    step = max(1, _BLOCK // length)
    for start in [0] if flat else range(0, a.shape[0], step):
        stop = length if flat else min(start + step, a.shape[0])
        ids = a.rows(start, stop).astype(np.int64).reshape(-1, length)
        kept = ~np.isin(ids, PADDING)
        if mask is not None:
            said = mask.rows(start, stop).reshape(-1, length)
            if not np.isin(said, (0, 1)).all() or (said.astype(bool) & ~kept).any():
                raise BadInput(f"{file}: attention_mask does not fit the ids near row {start}")
            kept = said.astype(bool)
        inside = ids[kept]
        if inside.size and (inside.min() < 0 or inside.max() >= 1 << 31):
            raise BadInput(
                f"{file}: token ids outside 0 to 2^31 near row {start} "
                "(-1 and -100 stand for padding)"
            )
        spill.add(ids, kept)
