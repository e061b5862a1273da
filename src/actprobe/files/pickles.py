"""What a pickle would cost to load, counted without loading it.

torch's own unpickler for weights runs no code of a file, but makes whatever objects it asks for: a
kilobyte can name lists that hold each other, tuples whose hash takes an age, one long string copied
a million times. Here the pickle machine is played with costs in place of objects.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any

from actprobe.base.errors import BadInput
from actprobe.files import limits

_PROTOCOLS = (2, 3)  # that torch's unpickler for weights reads
_MARK = None
_STRING = 64  # characters of a string that cost as much as an object
# Operations that take n things from the stack and leave one.
_TAKE = {"REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Those that take n things, and leave the container below them.
_PUT_INTO = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "POP": 1}


def check_pickle(file: str, data: bytes | IO[bytes]) -> None:
    """Walk the next pickle; leaves a stream behind its end.

    Raises BadInput naming the file when its objects would be more than `limits.OBJECTS` (a shared
    tuple counts wherever it occurs), for a protocol that torch does not load safely, and for what
    is no pickle.
    """
    try:
        _walk(file, data)
    except BadInput:
        raise
    except Exception as e:  # an operation on an empty stack, a string cut short, …
        raise BadInput(f"{file}: damaged pickle: {e}") from None


def _walk(file: str, data: bytes | IO[bytes]) -> None:
    stack: list[int | None] = []  # the size of each thing; of a list or dict 1, it has no hash
    memo: dict[Any, int | None] = {}
    cost = 0
    for op, arg, _ in pickletools.genops(data):
        name = op.name
        cost += 1
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
            cost += stack[-1] or 0
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TAKE:
            n = _TAKE[name]
            size = 1 + (sum(s or 0 for s in stack[-n:]) if name.startswith("TUPLE") else 0)
            del stack[-n:]
            stack.append(size)
            cost += size
        elif name == "TUPLE":
            size = 1 + _to_mark(stack)
            stack.append(size)
            cost += size
        elif name in ("APPENDS", "SETITEMS"):
            _to_mark(stack)
        elif name in _PUT_INTO:
            del stack[-_PUT_INTO[name] :]
        elif name == "PROTO":
            if arg not in _PROTOCOLS:
                raise BadInput(
                    f"{file}: pickle protocol {arg}, which torch does not load without running "
                    "code; save it again with torch.save(x, path), without pickle_protocol"
                )
        elif name != "STOP":  # a constant, a new container, a name
            stack.append(1 + (len(arg) // _STRING if isinstance(arg, (str, bytes)) else 0))
        if cost > limits.OBJECTS:
            raise BadInput(f"{file}: its pickle makes more than {limits.OBJECTS:,} objects")


def _to_mark(stack: list[int | None]) -> int:
    """Take everything down to the last mark; returns the sum of the sizes."""
    total = 0
    while (size := stack.pop()) is not _MARK:
        total += size
    return total
