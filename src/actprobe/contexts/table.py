"""Top contexts: per latent the examples that excite it most, with the tokens around the peak.

Works on any artefact whose rows are tokens: latents (CSR) or activations (each dimension is then a
latent). Two passes over the file in small pieces: sums per latent to choose from, then the
strongest examples of the chosen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from actprobe.base.errors import BadInput
from actprobe.files import as_float32

_ENTRIES = 1 << 20  # codes in memory at a time
_TOKENS = 1 << 15  # rows of a CSR file looked at together

SCHEMA = pa.schema(
    [
        pa.field("latent", pa.int32(), nullable=False),
        pa.field("total", pa.float64(), nullable=False),
        pa.field("frequency", pa.float64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("value", pa.float32(), nullable=False),
        pa.field("tokens", pa.list_(pa.string()), nullable=False),
        pa.field("values", pa.list_(pa.float32()), nullable=False),
        pa.field("peak", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Entries:
    """Codes of some tokens: latent, token row and value, each [n]."""

    latent: np.ndarray
    token: np.ndarray
    value: np.ndarray

    def take(self, rows: np.ndarray) -> Entries:
        return Entries(self.latent[rows], self.token[rows], self.value[rows])

    def __add__(self, other: Entries) -> Entries:
        both = zip(vars(self).values(), vars(other).values(), strict=True)
        return Entries(*(np.concatenate(pair) for pair in both))


def strongest(found: Entries, offsets: np.ndarray, k: int) -> Entries:
    """At most k entries per latent, each from another example: the largest values, ties to the
    earlier token; ordered by latent, then by falling value. offsets: int64 [N+1]."""
    order = np.lexsort((found.token, -found.value, found.latent))
    example = np.searchsorted(offsets, found.token[order], side="right") - 1
    pair = found.latent[order].astype(np.int64) * len(offsets) + example
    order = order[np.sort(np.unique(pair, return_index=True)[1])]
    latent = found.latent[order]
    first = np.searchsorted(latent, latent, side="left")
    return found.take(order[np.arange(len(order)) - first < k])


def entries(f: h5py.File) -> Iterator[Entries]:
    """The codes of an open artefact in pieces of about a million, tokens in order."""
    if "x" in f:
        x = f["x"]
        dtype = "bfloat16" if x.attrs.get("dtype") == "bfloat16" else str(x.dtype)
        step = max(1, _ENTRIES // x.shape[1])
        for start in range(0, x.shape[0], step):
            block = as_float32(x[start : start + step], dtype)
            row, latent = np.nonzero(block)
            yield Entries(latent, row + start, block[row, latent])
        return
    for start in range(0, f["indptr"].shape[0] - 1, _TOKENS):
        indptr = f["indptr"][start : start + _TOKENS + 1]
        low = 0
        while low < len(indptr) - 1:
            high = int(np.searchsorted(indptr, indptr[low] + _ENTRIES, side="right")) - 1
            high = max(high, low + 1)
            codes = slice(indptr[low], indptr[high])
            token = np.repeat(np.arange(low, high) + start, np.diff(indptr[low : high + 1]))
            yield Entries(f["indices"][codes], token, f["data"][codes])
            low = high


def width(f: h5py.File) -> int:
    """Number of latents of an open artefact."""
    return int(f["x"].shape[1] if "x" in f else f["shape"][1])


def totals(f: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the codes (float64 [F]) and number of tokens with a code (int64 [F]) per latent."""
    total, count = np.zeros(width(f)), np.zeros(width(f), np.int64)
    for e in entries(f):
        total += np.bincount(e.latent, e.value.astype(np.float64), minlength=len(total))
        count += np.bincount(e.latent, minlength=len(total))
    return total, count


def choose(total: np.ndarray, wanted: int | Sequence[int]) -> np.ndarray:
    """Latents to show: the given ones, or the `wanted` with the largest positive sums."""
    if not isinstance(wanted, int):
        if outside := [i for i in wanted if not 0 <= i < len(total)]:
            raise BadInput(f"latent {outside[0]}, expected 0 to {len(total) - 1}")
        return np.asarray(wanted, np.int64)
    order = np.argsort(-total, kind="stable")[:wanted]
    return order[total[order] > 0]


def top_contexts(
    f: h5py.File,
    offsets: np.ndarray,
    word: Callable[[int], str],
    wanted: int | Sequence[int],
    k: int,
    window: int,
) -> pa.Table:
    """The table of top contexts (`SCHEMA`), latents in the order chosen, contexts by rank.

    f: an open artefact whose rows are tokens; offsets: int64 [N+1] of its examples; word: the text
    of the token in a row; wanted: latents, or how many; k: contexts per latent; window: tokens
    shown on either side of the peak. Raises BadInput when rows and offsets do not fit.
    """
    n_tokens = f["x"].shape[0] if "x" in f else f["indptr"].shape[0] - 1
    if offsets[-1] != n_tokens:
        raise BadInput(f"{n_tokens} rows, but {offsets[-1]} tokens; rows must be tokens")
    total, count = totals(f)
    latents = choose(total, wanted)
    place = np.full(len(total), -1)
    place[latents] = np.arange(len(latents))
    empty = np.zeros(0, np.int64)
    best = Entries(empty, empty, np.zeros(0, np.float32))
    for e in entries(f):
        chosen = e.take(np.flatnonzero((place[e.latent] >= 0) & (e.value > 0)))
        best = strongest(
            best + Entries(place[chosen.latent], chosen.token, chosen.value), offsets, k
        )
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for i, (at, token, value) in enumerate(zip(best.latent, best.token, best.value, strict=True)):
        latent = int(latents[at])
        example = int(np.searchsorted(offsets, token, side="right")) - 1
        low = max(int(offsets[example]), int(token) - window)
        high = min(int(offsets[example + 1]), int(token) + window + 1)
        row = {
            "latent": latent,
            "total": float(total[latent]),
            "frequency": count[latent] / n_tokens,
            "rank": i - int(np.searchsorted(best.latent, at)),
            "example": example,
            "position": int(token - offsets[example]),
            "value": float(value),
            "tokens": [word(t) for t in range(low, high)],
            "values": _codes(f, latent, low, high).tolist(),
            "peak": int(token) - low,
        }
        for name, cell in row.items():
            columns[name].append(cell)
    return pa.table(columns, schema=SCHEMA)


def _codes(f: h5py.File, latent: int, low: int, high: int) -> np.ndarray:
    """Codes of one latent at the tokens [low, high), float32."""
    if "x" in f:
        dtype = "bfloat16" if f["x"].attrs.get("dtype") == "bfloat16" else str(f["x"].dtype)
        return as_float32(f["x"][low:high, latent], dtype)
    indptr = f["indptr"][low : high + 1]
    codes = slice(indptr[0], indptr[-1])
    hit = np.flatnonzero(f["indices"][codes] == latent)
    out = np.zeros(high - low, np.float32)
    out[np.searchsorted(indptr - indptr[0], hit, side="right") - 1] = f["data"][codes][hit]
    return out


def words(f: h5py.File, tokenizer: str | None) -> Callable[[int], str]:
    """The text of the token in a row: from the file's vocabulary, from a tokenizer.json, or its id.

    Pieces stay as the tokenizer keeps them, with its marks for spaces.
    """
    ids = f["token_ids"]
    if "vocabulary" in f:
        text, ends = f["vocabulary"][:].tobytes(), f["vocabulary_offsets"][:]
        return lambda row: text[ends[ids[row]] : ends[ids[row] + 1]].decode()
    if tokenizer is None:
        return lambda row: str(ids[row]) if ids[row] >= 0 else "·"
    from tokenizers import Tokenizer

    try:
        known = Tokenizer.from_file(tokenizer)
    except Exception as e:  # the library raises nothing more special
        raise BadInput(f"{tokenizer}: no tokenizer.json that can be read: {e}") from None
    return lambda row: known.id_to_token(int(ids[row])) or str(ids[row])
