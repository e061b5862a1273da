"""The tokens of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tokens:
    """The tokens of a dataset, row after row.

    ids: int32 [T]; offsets: int64 [N+1], row i is ids[offsets[i]:offsets[i+1]]; content: bool [T],
    False for special and template tokens; chars: int32 [T, 2] or None, the characters of the row's
    text that each token covers (end > start only where it covers any); n_truncated: rows cut;
    n_special: rows whose text holds special tokens, besides a BOS in front; n_bos: rows that begin
    with the BOS; types: int8 [T], token types, None where all are 0; said: int32 [T, 3], who says each
    token, in which turn, and what it is (`segments`), None where there is no chat template; roles: the
    number of the role of each message, row by row, None likewise.
    """

    ids: np.ndarray
    offsets: np.ndarray
    content: np.ndarray
    chars: np.ndarray | None
    n_truncated: int
    n_special: int = 0
    n_bos: int = 0
    types: np.ndarray | None = None
    said: np.ndarray | None = None
    roles: Sequence[bytes] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [N]."""
        return np.diff(self.offsets)

    def row(self, i: int) -> slice:
        """Where row i stands in `ids`, `content` and `chars`."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def row_digests(tokens: Tokens, kind: str, read: np.ndarray) -> np.ndarray:
    """What the model reads of each row and what a position takes of it, as digests, uint8 [N, 16].

    kind: of the reduction; read: its index int64 [N] or its mask bool [T]. Rows that agree in it, in
    the model and in how it is run have equal activations up to the rounding of their batch. Where all
    tokens are kept, what is kept of them besides counts too: their characters, and who says them.
    """
    found = np.empty((len(tokens.lengths), 16), np.uint8)
    ids = np.ascontiguousarray(tokens.ids, "<i4")
    types = None if tokens.types is None else np.ascontiguousarray(tokens.types, "i1")
    of_row = read.dtype != bool
    taken = np.ascontiguousarray(read, "<i8" if of_row else "u1")
    begin = hashlib.blake2b(kind.encode(), digest_size=16)
    more = [] if kind != "tokens" else [a for a in (tokens.chars, tokens.said) if a is not None]
    more = [np.ascontiguousarray(a, "<i4") for a in more]
    for i in range(len(found)):
        row, h = tokens.row(i), begin.copy()
        h.update(ids[row].data)
        h.update(b"" if types is None else types[row].data)
        h.update(taken[i : i + 1].data if of_row else taken[row].data)
        for array in more:
            h.update(array[row].data)
        found[i] = np.frombuffer(h.digest(), np.uint8)
    return found


def tokens_sha256(digests: np.ndarray) -> str:
    """SHA-256 of all rows' digests in their order.

    Two artefacts that agree in it, in the model and in how it is run hold the same numbers, whatever
    their settings say.
    """
    return hashlib.sha256(digests.tobytes()).hexdigest()
