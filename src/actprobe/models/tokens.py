"""The tokens of a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tokens:
    """The tokens of a dataset, row after row.

    ids: int32 [T]; offsets: int64 [N+1], row i is ids[offsets[i]:offsets[i+1]]; content: bool [T],
    False for special and template tokens; chars: int32 [T, 2] or None, the characters of the row's
    text that each token covers (end > start only where it covers any); n_truncated: rows cut;
    n_special: rows whose text holds special tokens, besides a BOS in front; n_bos: rows that begin
    with the BOS; types: int8 [T], token types, None where all are 0.
    """

    ids: np.ndarray
    offsets: np.ndarray
    content: np.ndarray
    chars: np.ndarray | None
    n_truncated: int
    n_special: int = 0
    n_bos: int = 0
    types: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [N]."""
        return np.diff(self.offsets)

    def row(self, i: int) -> slice:
        """Where row i stands in `ids`, `content` and `chars`."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def shared_prefix(tokens: Tokens) -> int:
    """How many first tokens all rows share, leaving each row at least one of its own."""
    starts, most = tokens.offsets[:-1], int(tokens.lengths.min()) - 1
    for k in range(most):
        column = tokens.ids[starts + k]
        if (column != column[0]).any():
            return k
    return most


def tokens_sha256(tokens: Tokens, kind: str, read: np.ndarray) -> str:
    """SHA-256 of all that the model reads, and of what a position takes of it.

    kind: of the reduction; read: its index int64 [N] or its mask bool [T]. Two artefacts that agree
    in it, in the model and in how it is run hold the same numbers, whatever their settings say.
    """
    h = hashlib.sha256()
    types = np.zeros(0, np.int8) if tokens.types is None else tokens.types
    for array, dtype in (
        (tokens.ids, "<i4"), (tokens.offsets, "<i8"), (types, "i1"),
        (read, "u1" if read.dtype == bool else "<i8"),
    ):  # fmt: skip
        h.update(f"{len(array)};".encode())
        h.update(np.ascontiguousarray(array, dtype).tobytes())
    h.update(kind.encode())
    return h.hexdigest()
