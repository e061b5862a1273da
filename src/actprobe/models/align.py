"""Two renderings of one chat laid on each other: with its texts, and with marks in their places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_NUMBER = 918_273_600_000  # arguments of tools are marked with numbers from here on
# Invisible separators, which no template strips, around the number of a leaf.
_MARK = re.compile(r"\u2063actprobe(\d+)\u2063|actprobeCall(\d+)x|(9182736\d{5})(?!\d)")


def mark(i: int) -> str:
    """What stands for the text of leaf i."""
    return f"\u2063actprobe{i}\u2063"


def name_mark(i: int) -> str:
    """What stands for the name of the tool that leaf i calls."""
    return f"actprobeCall{i}x"


def number_mark(i: int) -> int:
    """What stands for the last argument of the call of leaf i."""
    return _NUMBER + i


class Variable(NamedTuple):
    """What stands in the place of a mark.

    leaf: its number; kind: text (the leaf's own), call (from the tool's name to its last argument) or
    name (of a tool, somewhere else).
    """

    leaf: int
    kind: str


@dataclass(frozen=True)
class Marks:
    """A skeleton taken apart: pieces[0], variables[0], pieces[1], …, pieces[n].

    shown: leaves that stand in it; names: leaf -> name of the tool that it calls.
    """

    pieces: Sequence[str]
    variables: Sequence[Variable]
    shown: set[int]
    names: Mapping[int, str]


class Fragment(NamedTuple):
    """A piece of a leaf in the string.

    start, end: its characters there; at, n: its characters of the leaf's text (fewer or more where
    the template writes it in another way).
    """

    leaf: int
    start: int
    end: int
    at: int
    n: int


class Unmatched(Exception):
    """The string does not hold a leaf where its mark says."""

    def __init__(self, leaf: int) -> None:
        super().__init__(leaf)
        self.leaf = leaf


def markers(skeleton: str, n: int, names: Mapping[int, str]) -> Marks:
    """The marks of n leaves in a skeleton; names: of the tools that leaves call."""
    pieces: list[str] = []
    variables: list[Variable] = []
    at = 0
    found = [m for m in _MARK.finditer(skeleton) if _leaf(m) < n]
    whole = {_leaf(m) for m, then in pairwise(found) if _is_call(m, then)}
    skipped = None
    for k, m in enumerate(found):
        leaf = _leaf(m)
        if k == skipped:
            continue
        if m[3] is not None:  # a number without its name before it: an argument shown twice
            continue
        end, kind = m.end(), "text"
        if m[2] is not None:
            kind = "name"
            if k + 1 < len(found) and _is_call(m, found[k + 1]):
                kind, end, skipped = "call", found[k + 1].end(), k + 1
            elif leaf not in whole | {v.leaf for v in variables}:
                kind = "call"  # without arguments
        pieces.append(skeleton[at : m.start()])
        variables.append(Variable(leaf, kind))
        at = end
    pieces.append(skeleton[at:])
    shown = {v.leaf for v in variables if v.kind != "name"}
    return Marks(pieces, variables, shown, names)


def _is_call(m: re.Match[str], then: re.Match[str]) -> bool:
    """Whether two marks are the name and the last argument of one call."""
    return m[2] is not None and then[3] is not None and _leaf(m) == _leaf(then)


def _leaf(m: re.Match[str]) -> int:
    return int(m[1] or m[2] or int(m[3]) - _NUMBER)


def aligned(string: str, marks: Marks, texts: Sequence[str]) -> list[Fragment]:
    """Where each variable stands in the string. Raises Unmatched.

    texts: of the leaves. A text stands there as it is, without the white space around it, as JSON
    writes it, or in part.
    """
    found: list[Fragment] = []
    if not string.startswith(marks.pieces[0]):
        raise Unmatched(marks.variables[0].leaf if marks.variables else 0)
    at = len(marks.pieces[0])
    for k, v in enumerate(marks.variables):
        piece = marks.pieces[k + 1]
        last = k + 1 == len(marks.variables)
        fragments, at = _stretch(string, at, v, piece, last, texts[v.leaf], marks.names)
        found += fragments
        at += len(piece)
    if at != len(string):
        raise Unmatched(marks.variables[-1].leaf if marks.variables else 0)
    return sorted(found, key=lambda f: f.start)


def _stretch(
    string: str,
    at: int,
    v: Variable,
    piece: str,
    last: bool,
    text: str,
    names: Mapping[int, str],
) -> tuple[list[Fragment], int]:
    """The fragments of one variable that begins at `at`, and where the piece after it begins."""

    def ends(end: int) -> bool:
        return string.startswith(piece, end) and (not last or end + len(piece) == len(string))

    if v.kind == "name":
        end = at + len(names[v.leaf])
        if string.startswith(names[v.leaf], at) and ends(end):
            return [], end
        raise Unmatched(v.leaf)
    if v.kind == "text":
        for fragments in _spellings(text):
            end = at + (fragments[-1].end if fragments else 0)
            shown = "".join(_written(text, f) for f in fragments)
            if string.startswith(shown, at) and ends(end):
                return [_at(f, v.leaf, at) for f in fragments], end
    end = len(string) - len(piece) if last else string.find(piece, at)
    if end < at or not ends(end) or (not piece and not last):
        raise Unmatched(v.leaf)
    if v.kind == "call":
        if not string.startswith(names[v.leaf], at):
            raise Unmatched(v.leaf)
        return [Fragment(v.leaf, at, end, 0, len(text))], end
    shown = string[at:end]
    if not shown or text.count(shown) != 1:
        raise Unmatched(v.leaf)
    return [Fragment(v.leaf, at, end, text.index(shown), len(shown))], end


def _at(f: Fragment, leaf: int, at: int) -> Fragment:
    return f._replace(leaf=leaf, start=f.start + at, end=f.end + at)


def _spellings(text: str) -> Iterator[list[Fragment]]:
    """The ways in which a text may stand in the string, as fragments from 0 on."""
    trimmed = dict.fromkeys([text, text.rstrip(), text.lstrip(), text.strip()])
    for shown in trimmed:
        at = len(text) - len(text.lstrip()) if shown[:1] != text[:1] else 0
        yield [Fragment(0, 0, len(shown), at, len(shown))]
    for shown in trimmed:
        at = len(text) - len(text.lstrip()) if shown[:1] != text[:1] else 0
        yield list(_escaped(shown, at))


def _escaped(text: str, at: int) -> Iterator[Fragment]:
    """A text as JSON writes it: runs of plain characters, and each escape."""
    start = 0
    for m in re.finditer(r'[^"\\\x00-\x1f]+|["\\\x00-\x1f]', text):
        length = len(json.dumps(m[0], ensure_ascii=False)) - 2
        yield Fragment(0, start, start + length, at + m.start(), len(m[0]))
        start += length


def _written(text: str, f: Fragment) -> str:
    plain = text[f.at : f.at + f.n]
    return plain if f.end - f.start == f.n else json.dumps(plain, ensure_ascii=False)[1:-1]
