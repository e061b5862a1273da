"""Some rows on their way from the tokenizer to a dataset's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from actprobe.models.segments import NO_TURN, Rendered

NOBODY = (0, NO_TURN, 0)


@dataclass(frozen=True)
class Rows:
    """Some rows as the tokenizer gave them, all tokens one after the other.

    ids: int32 [T]; lengths: int64 [n]; own: bool [T], tokens of the row's text, neither added by
    the tokenizer nor of a template; chars: int32 [T, 2], the characters of the text that each
    covers, zeros where they are not known; types: int8 [T]; said: int32 [T, 3], who says each, in
    which turn, and what it is (`segments`): (0, -1, 0) for what nobody says.
    """

    ids: np.ndarray
    lengths: np.ndarray
    own: np.ndarray
    chars: np.ndarray
    types: np.ndarray
    said: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each row begins, int64 [n]."""
        return np.cumsum(self.lengths) - self.lengths

    def firsts(self, token: int | None) -> np.ndarray:
        """Which rows begin with this token, bool [n]."""
        found = np.zeros(len(self.lengths), bool)
        some = self.lengths > 0
        if token is not None:
            found[some] = self.ids[self.starts[some]] == token
        return found

    def having(self, tokens: np.ndarray) -> np.ndarray:
        """Which rows have one of these tokens, bool [T], bool [n]."""
        counts = np.concatenate([[0], np.cumsum(tokens)])
        return counts[self.starts + self.lengths] > counts[self.starts]

    def keeping(self, keep: np.ndarray) -> Rows:
        """The tokens of keep, bool [T], alone."""
        ends = np.concatenate([[0], np.cumsum(keep)])
        return Rows(
            self.ids[keep],
            ends[self.starts + self.lengths] - ends[self.starts],
            self.own[keep],
            self.chars[keep],
            self.types[keep],
            self.said[keep],
        )

    def fronted(self, rows: np.ndarray, token: int) -> Rows:
        """With this token, no part of the text, before each row of `rows`, bool [n]."""
        at = self.starts[rows]
        return Rows(
            np.insert(self.ids, at, token),
            self.lengths + rows,
            np.insert(self.own, at, False),
            np.insert(self.chars, at, 0, axis=0),
            np.insert(self.types, at, 0),
            np.insert(self.said, at, NOBODY, axis=0),
        )

    def replaced(self, row: int, other: Rows) -> Rows:
        """With another row in the place of row `row`."""
        low = int(self.starts[row])
        high = low + int(self.lengths[row])
        lengths = self.lengths.copy()
        lengths[row] = other.lengths[0]
        parts = {
            name: np.concatenate([mine[:low], getattr(other, name), mine[high:]])
            for name, mine in (("ids", self.ids), ("own", self.own), ("chars", self.chars),
                               ("types", self.types), ("said", self.said))
        }  # fmt: skip
        return replace(self, lengths=lengths, **parts)


def joined(pieces: Sequence[Rows]) -> Rows:
    """All these rows, in order."""
    return Rows(
        np.concatenate([p.ids for p in pieces]),
        np.concatenate([p.lengths for p in pieces]),
        np.concatenate([p.own for p in pieces]),
        np.concatenate([p.chars for p in pieces]),
        np.concatenate([p.types for p in pieces]),
        np.concatenate([p.said for p in pieces]),
    )


def cut(rows: Rows, most: int, side: str, keep_first: np.ndarray) -> tuple[Rows, np.ndarray]:
    """Rows of at most `most` tokens, and which rows were cut, bool [n].

    The text is cut, at its end ("right") or its beginning ("left"): what the tokenizer adds, a
    template, and the first token of the rows of keep_first (bool [n], a BOS that the text brings)
    stay. A row in which nothing of the text would be left is returned longer than `most`.
    """
    keep = np.ones(len(rows.ids), bool)
    shortened = np.zeros(len(rows.lengths), bool)
    starts = rows.starts
    for i in np.flatnonzero(rows.lengths > most).tolist():
        low = int(starts[i])
        cuttable = low + np.flatnonzero(rows.own[low : low + int(rows.lengths[i])])
        if keep_first[i]:
            cuttable = cuttable[cuttable > low]
        excess = int(rows.lengths[i]) - most
        if excess < len(cuttable):
            keep[cuttable[-excess:] if side == "right" else cuttable[:excess]] = False
            shortened[i] = True
    return rows.keeping(keep), shortened


def flat(batch: Mapping[str, Any]) -> Rows:
    """A tokenizer's output; own: what it did not add itself."""
    chained, rows = chain.from_iterable, batch["input_ids"]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(chained(rows), np.int32)
    # Tokenizers in Python that find their own EOS in a text add none, and yet their mask has it.
    masks = zip(rows, batch["special_tokens_mask"], strict=True)
    fitting = (mask if len(mask) == len(row) else [0] * len(row) for row, mask in masks)
    own = np.fromiter(chained(fitting), np.int8) == 0
    chars, types = np.zeros((len(ids), 2), np.int32), np.zeros(len(ids), np.int8)
    if "offset_mapping" in batch:
        chars = np.fromiter(chained(chained(batch["offset_mapping"])), np.int32).reshape(-1, 2)
    if "token_type_ids" in batch:
        types = np.fromiter(chained(batch["token_type_ids"]), np.int8)
    return Rows(ids, lengths, own, chars, types, nobody(len(ids)))


def nobody(n: int) -> np.ndarray:
    """`said` of n tokens that nobody says."""
    return np.tile(np.array(NOBODY, np.int32), (n, 1))


def on_texts(rows: Rows, rendered: Sequence[Rendered]) -> Rows:
    """Rows of conversations whose characters, of the rendered strings until now, are the texts'.

    A token belongs to what it covers a character of, the first where these are several; what covers
    nothing that is said is the template's.
    """
    own, chars, said = np.zeros_like(rows.own), np.zeros_like(rows.chars), nobody(len(rows.ids))
    ends = np.cumsum(rows.lengths)
    for (_, segments), low, high in zip(rendered, rows.starts, ends, strict=True):
        begin, end = rows.chars[low:high].T
        for s in segments:
            first, last = np.maximum(begin, s.start), np.minimum(end, s.end)
            hit = last > first
            covered = np.stack([first, last], 1) - s.start + s.at
            if s.end - s.start != s.n:
                covered[:] = s.at, s.at + s.n
            new = hit & ~own[low:high]
            chars[low:high][new] = covered[new]
            said[low:high][new] = s.role, s.turn, s.part
            more = hit & ~new & (said[low:high, 1] == s.turn)
            chars[low:high, 1][more] = covered[more, 1]
            own[low:high] |= hit
    return replace(rows, own=own, chars=chars, said=said)
