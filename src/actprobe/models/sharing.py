"""Rows that begin alike: which are read inside another row, and whose beginnings are computed once.

In a causal model a token's activations depend on the tokens before it alone. So a row that another row
goes on from (the first turns of a conversation) needs no computing of its own, and rows that part later
(several answers to a prompt, texts behind one instruction) go on from the keys and values of what they
share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from actprobe.models.tokens import Tokens

_LEAST = 8  # fewer shared tokens are not worth the copies of their keys and values


@dataclass(frozen=True)
class Group:
    """Rows that are computed behind their first `length` tokens, which they share: indices [n]."""

    length: int
    rows: np.ndarray


@dataclass(frozen=True)
class Sharing:
    """How rows share what they begin with.

    carrier: row -> the row that it is read in, which may be itself; groups: of all rows that are
    computed. No two rows of a group go on from each other.
    """

    carrier: dict[int, int]
    groups: list[Group]

    def carried(self) -> dict[int, list[int]]:
        """Row that is computed -> the rows that are read in it, itself first."""
        found: dict[int, list[int]] = {c: [c] for c in self.carrier.values()}
        for row, c in self.carrier.items():
            if row != c:
                found[c].append(row)
        return found

    def facts(self, lengths: np.ndarray) -> dict[str, int]:
        """What the header tells; lengths: tokens of each row of the dataset.

        inside: rows that are read in others; prefixes: that are computed once; behind: rows that go on
        from one; tokens_saved: that are not computed.
        """
        inside = [row for row, c in self.carrier.items() if row != c]
        behind = [g for g in self.groups if g.length]
        saved = sum((len(g.rows) - 1) * g.length for g in behind)
        return {
            "inside": len(inside),
            "prefixes": len(behind),
            "behind": sum(len(g.rows) for g in behind),
            "tokens_saved": int(lengths[inside].sum()) + saved,
        }


def nothing(rows: np.ndarray) -> Sharing:
    """Every row for itself."""
    return Sharing({i: i for i in rows.tolist()}, [Group(0, rows)])


def shared(tokens: Tokens, rows: np.ndarray, per_pass: int) -> Sharing:
    """How these rows share; rows: indices, int64 [n]; per_pass: what a pass costs besides its tokens, in
    tokens.

    Of the tree that the rows' beginnings form, the nodes are taken that save most, none below another;
    each costs the pass over itself and one over the few rows that are left in its last batch. Equal rows
    are read in the last of them.
    """
    assert tokens.types is None
    ids = np.ascontiguousarray(tokens.ids, ">i4")
    of_row = {i: ids[tokens.row(i)] for i in rows.tolist()}
    keys = {i: a.tobytes() for i, a in of_row.items()}
    order = sorted(keys, key=keys.__getitem__)
    del keys
    common = [_common(of_row[a], of_row[b]) for a, b in pairwise(order)]
    carrier = {order[-1]: order[-1]}
    computed, between = [order[-1]], []  # from the last one on
    for k in range(len(order) - 2, -1, -1):
        row, after = order[k], order[k + 1]
        if common[k] == len(of_row[row]):  # whoever goes on from it stands right behind it
            carrier[row] = carrier[after]
            continue
        carrier[row] = row
        computed.append(row)
        between.append(common[k])
    # Between a row and the next one that is computed stand only rows that the latter goes on from.
    return Sharing(carrier, _groups(computed[::-1], between[::-1], 2 * per_pass))


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many first tokens two rows share."""
    n = min(len(a), len(b))
    other = a[:n] != b[:n]
    return int(other.argmax()) if other.any() else n


@dataclass
class _Node:
    """A beginning that the rows from `start` on share; what is chosen below it, and what that saves."""

    length: int
    start: int
    gain: int = 0
    chosen: list[tuple[int, int, int]] = field(default_factory=list)  # length, start, end


def _groups(rows: list[int], between: list[int], cost: int) -> list[Group]:
    """The groups of rows in order of their tokens; between: tokens that neighbours share."""
    open_nodes = [_Node(0, 0)]
    for end, length in enumerate([*between, 0], 1):
        start = end - 1
        while open_nodes[-1].length > length:
            node = open_nodes.pop()
            start = node.start
            own = (end - start - 1) * node.length - cost
            if own > node.gain and node.length >= _LEAST:
                node.gain, node.chosen = own, [(node.length, start, end)]
            if open_nodes[-1].length < length:
                open_nodes.append(_Node(length, start))
            open_nodes[-1].gain += node.gain
            open_nodes[-1].chosen += node.chosen
        if open_nodes[-1].length < length:
            open_nodes.append(_Node(length, start))
    grouped = np.zeros(len(rows), bool)
    found, every = [], np.array(rows, np.int64)
    for length, start, end in open_nodes[0].chosen:
        found.append(Group(length, np.sort(every[start:end])))
        grouped[start:end] = True
    alone = [Group(0, np.sort(every[~grouped]))] if not grouped.all() else []
    return alone + found
