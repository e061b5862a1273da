"""The tokens of a dump: a `.pt` list of lists of strings or ints, or an array of ids.

A list of n tokens unpickled the usual way takes about twenty times its size in memory. Here its
pickle is walked once, window by window; what is kept are int32 ids, in a temporary file, and one
copy of each distinct string. Only the few pickle operations that lists of strings and ints consist
of are known; everything else is refused.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actprobe.errors import BadInput
from actprobe.wandb.arrays import open_arrays
from actprobe.wandb.pt import pickle_member
from actprobe.wandb.zips import members

_FORGET = 1 << 26  # bytes of the file after which pages already read are given back
_LIST = -1  # memo entry of a list
_MARK = object()


@dataclass(frozen=True)
class Tokens:
    """Tokens of every row of a dump.

    ids: int32 [T], memory-mapped; offsets: int64 [N+1], row i has ids[offsets[i]:offsets[i+1]];
    vocabulary: the string of each id, or None when the dump holds ids of the model's tokenizer.
    """

    ids: np.ndarray
    offsets: np.ndarray
    vocabulary: list[str] | None


@contextmanager
def open_tokens(path: str | Path, kind: str, folder: str | Path) -> Iterator[Tokens]:
    """Tokens of a file; `folder` gets a temporary file of 4 bytes per token. Raises BadInput."""
    path = Path(path)
    with tempfile.TemporaryFile(dir=folder) as spill:
        lengths, vocabulary = array("q"), None
        if kind in ("pt", "pth") and _is_list(path):
            strings: dict[bytes, int] = {}
            for window in _windows(path, strings):
                lengths.append(len(window))
                window.tofile(spill)
            vocabulary = [s.decode("utf-8", errors="replace") for s in strings] or None
        else:
            _copy_array(path, kind, lengths, spill)
        spill.flush()
        offsets = np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int64))])
        if not offsets[-1]:
            raise BadInput(f"{path}: holds no tokens")
        yield Tokens(np.memmap(spill, np.int32, "r"), offsets.astype(np.int64), vocabulary)


def _copy_array(path: Path, kind: str, lengths: array, spill: Any) -> None:
    """An integer array [rows, length], the only one of its file."""
    with open_arrays(path, kind) as found:
        if len(found) != 1:
            raise BadInput(f"{path}: {len(found)} arrays, expected one of token ids")
        ids = next(iter(found.values()))
        if len(ids.shape) != 2 or not ids.dtype.startswith("int"):
            raise BadInput(f"{path}: {ids.shape} {ids.dtype}, expected integers [rows, length]")
        if not ids.shape[1]:
            raise BadInput(f"{path}: holds no tokens")
        step = max(1, (1 << 22) // ids.shape[1])
        for start in range(0, ids.shape[0], step):
            block = ids.rows(start, min(start + step, ids.shape[0]))
            if block.size and (block.min() < 0 or block.max() >= 1 << 31):
                raise BadInput(f"{path}: token ids outside 0 to 2^31 near row {start}")
            block.astype(np.int32).tofile(spill)
        lengths.extend([ids.shape[1]] * ids.shape[0])


def _is_list(path: Path) -> bool:
    found = members(path)
    start, _ = found[pickle_member(path, found)]
    with open(path, "rb") as f:
        f.seek(start)
        head = f.read(12)
    at = 11 if head[2:3] == b"\x95" else 2  # PROTO and its number, maybe a FRAME and its length
    return head[at : at + 1] == b"]"  # EMPTY_LIST


def _windows(path: Path, strings: dict[bytes, int]) -> Iterator[array]:
    """The inner lists of a pickled list of lists, as ids; strings get ids as they first appear.

    The operations are those that Python's pickle module documents; the names are in the comments.
    """
    found = members(path)
    start, size = found[pickle_member(path, found)]
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield from _walk(data, start, start + size, strings)
        except (IndexError, struct.error, TypeError, OverflowError, AttributeError) as e:
            raise BadInput(
                f"{path}: not a list of lists of tokens, or damaged ({type(e).__name__})"
            ) from None
        except ValueError as e:
            raise BadInput(f"{path}: {e}") from None


def _walk(data: mmap.mmap, at: int, end: int, strings: dict[bytes, int]) -> Iterator[array]:
    memo = array("i")  # of strings the id, of lists _LIST
    stack: list = []  # _MARK, ids, arrays (the inner lists), and at the bottom the outer list
    forgotten, outer, numbers = at - at % mmap.PAGESIZE, None, False
    u4, i4, u2 = (struct.Struct(f).unpack_from for f in ("<I", "<i", "<H"))

    def remember(index: int, value: object) -> None:
        if index != len(memo):
            raise ValueError(f"memo entry {index} out of order, refused")
        memo.append(value if isinstance(value, int) else _LIST)

    def recall(index: int) -> int:
        if memo[index] == _LIST:
            raise ValueError("a list inside the list of tokens occurs twice, refused")
        return memo[index]

    while at < end:
        op = data[at]
        if op in (0x58, 0x8C):  # BINUNICODE, SHORT_BINUNICODE
            n, at = (u4(data, at + 1)[0], at + 5) if op == 0x58 else (data[at + 1], at + 2)
            if at + n > end:
                raise ValueError("cut short inside a string")
            text = data[at : at + n]
            stack.append(strings.setdefault(text, len(strings)))
            at += n
        elif op == 0x71:  # BINPUT
            remember(data[at + 1], stack[-1])
            at += 2
        elif op == 0x72:  # LONG_BINPUT
            remember(u4(data, at + 1)[0], stack[-1])
            at += 5
        elif op == 0x94:  # MEMOIZE
            remember(len(memo), stack[-1])
            at += 1
        elif op == 0x68:  # BINGET
            stack.append(recall(data[at + 1]))
            at += 2
        elif op == 0x6A:  # LONG_BINGET
            stack.append(recall(u4(data, at + 1)[0]))
            at += 5
        elif op == 0x4B:  # BININT1
            stack.append(data[at + 1])
            at, numbers = at + 2, True
        elif op == 0x4D:  # BININT2
            stack.append(u2(data, at + 1)[0])
            at, numbers = at + 3, True
        elif op == 0x4A:  # BININT
            stack.append(i4(data, at + 1)[0])
            at, numbers = at + 5, True
            if stack[-1] < 0:
                raise ValueError(f"token id {stack[-1]}")
        elif op == 0x5D:  # EMPTY_LIST
            inner = array("i")
            outer = inner if outer is None else outer
            stack.append(inner)
            at += 1
        elif op == 0x28:  # MARK
            stack.append(_MARK)
            at += 1
        elif op in (0x61, 0x65):  # APPEND, APPENDS
            cut = len(stack) - 1
            if op == 0x65:
                while stack[cut] is not _MARK:
                    cut -= 1
            items, into = stack[cut + (op == 0x65) :], stack[cut - 1]
            del stack[cut:]
            if into is not outer:
                into.extend(items)
            elif all(isinstance(i, array) for i in items):
                yield from items
            else:
                raise ValueError("a list of tokens, expected a list of lists")
            at += 1
            if at - forgotten > _FORGET:
                data.madvise(mmap.MADV_DONTNEED, forgotten, at - forgotten & -mmap.PAGESIZE)
                forgotten = at - at % mmap.PAGESIZE
        elif op == 0x80:  # PROTO
            at += 2
        elif op == 0x95:  # FRAME
            at += 9
        elif op == 0x2E:  # STOP
            if len(stack) != 1 or stack[0] is not outer:
                raise ValueError("not one list of lists")
            if strings and numbers:
                raise ValueError("strings and numbers mixed in the list of tokens")
            return
        else:
            raise ValueError(f"pickle operation {op:#04x} in a list of tokens, refused")
    raise ValueError("cut short")
