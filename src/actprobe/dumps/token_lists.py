"""Tokens as a pickled list of lists of strings or ints, walked without unpickling it.

A list of n tokens unpickled the usual way takes about twenty times its size in memory. Here its
pickle is walked once, window by window; what stays is one copy of each distinct string. Only the few
pickle operations that lists of strings and ints consist of are known; everything else is refused.
"""

from __future__ import annotations

import mmap
import re
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.files.zips import members, pickle_member

PADDING = (-1, -100)  # ids that stand for no token
_FORGET = 1 << 26  # bytes of the file after which pages already read are given back
_LIST = -(1 << 31)  # memo entry of a list
_MARK = object()
# PROTO, maybe a FRAME; EMPTY_LIST, maybe put into the memo; maybe a MARK; the first item.
_BEGINNING = re.compile(rb"\x80.(?:\x95.{8})?\](?:q.|r.{4}|\x94)?\(?(.)", re.DOTALL)


def list_of(path: Path) -> str | None:
    """What the list in a `.pt` file begins with, "lists" or "ids"; None when it is no such list."""
    with open(path, "rb") as f:
        if f.read(2) != b"PK":  # the format before torch 1.6
            return None
        found = members(path)
        f.seek(found[pickle_member(path, found)].start)
        m = _BEGINNING.match(f.read(32))
    if m is None or m[1] == b"c":  # GLOBAL: what a tensor begins with
        return None
    return "ids" if m[1] in b"KMJ" else "lists"


def windows(path: Path, strings: dict[bytes, int], kinds: set[str]) -> Iterator[array[int]]:
    """The inner lists of a pickled list of lists, as ids; a list of ids is one.

    `kinds` gets "strings" or "ids", what the lists hold. Strings get ids as they first appear
    (those in `strings` keep theirs); integers stay, those of `PADDING` too. The operations are those
    that Python's pickle module documents; their names are in the comments.
    """
    found = members(path)
    m = found[pickle_member(path, found)]
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield from _walk(data, m.start, m.start + m.size, strings, kinds)
        except (IndexError, struct.error, TypeError, OverflowError, AttributeError) as e:
            raise BadInput(
                f"{path}: not a list of lists of tokens, or damaged ({type(e).__name__})"
            ) from None
        except ValueError as e:
            raise BadInput(f"{path}: {e}") from None


def _walk(
    data: mmap.mmap, at: int, end: int, strings: dict[bytes, int], kinds: set[str]
) -> Iterator[array[int]]:
    memo = array("i")  # of strings the id, of lists _LIST
    stack: list[Any] = []  # _MARK, ids, arrays (the inner lists), and at the bottom the outer list
    outer: Any = None
    forgotten, numbers, words = at - at % mmap.PAGESIZE, False, False
    kind: type | None = None  # of the items of the outer list: int for a list of ids
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
            at, words = at + n, True
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
            if stack[-1] < 0 and stack[-1] not in PADDING:
                raise ValueError(
                    f"token id {stack[-1]}; expected 0 and up, or -1 or -100 as padding"
                )
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
            elif (kind or array) is array and all(isinstance(i, array) for i in items):
                kind = array
                yield from items
            elif (kind or int) is int and numbers and all(isinstance(i, int) for i in items):
                kind = int
                into.extend(items)
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
            if words and numbers:
                raise ValueError("strings and numbers mixed in the list of tokens")
            if kind is int:
                yield outer
            kinds |= {"strings"} if words else {"ids"} if numbers else set()
            return
        else:
            raise ValueError(f"pickle operation {op:#04x} in a list of tokens, refused")
    raise ValueError("cut short")
