"""Activation artefacts: what stands in the file, how batches land in it, how it is read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from actprobe.cache import store
from actprobe.models.tokens import Tokens


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 bits (uint16), exact."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def begin(
    path: str,
    spec: Mapping[str, Any],
    tokens: Tokens,
    keep: np.ndarray | None,
    d: int,
    dtype: str,
    units: int,
    facts: Mapping[str, Any],
    digests: np.ndarray,
) -> store.Part:
    """The part of one artefact, resumed or begun, with all but x written to it.

    keep: bool [T], the tokens that position `tokens` stores; None for one vector per row.
    dtype: of x, "float32", "float16" or "bfloat16". units: batches; digests: uint8 [N, 16].
    """
    n = len(tokens.lengths)
    rows = n if keep is None else int(keep.sum())
    arrays: dict[str, Any] = {
        "x": ((rows, d), "uint16" if dtype == "bfloat16" else dtype),
        "n_tokens": ((n,), "int32"),
        "row_digests": (digests.shape, "uint8"),
    }
    if keep is not None:
        arrays |= {"offsets": ((n + 1,), "int64"), "token_ids": ((rows,), "int32")}
        if tokens.chars is not None:
            arrays["chars"] = ((rows, 2), "int32")
        if tokens.said is not None:
            arrays["said"] = ((rows, 3), "int16")
    part = store.Part(path, spec, arrays, units, facts, {"x": {"dtype": dtype}})
    if part.pending:
        part["n_tokens"][:] = tokens.lengths
        part["row_digests"][:] = digests
        if keep is not None:
            part["offsets"][:] = kept_offsets(tokens, keep)
            part["token_ids"][:] = tokens.ids[keep]
            if tokens.chars is not None:
                part["chars"][:] = tokens.chars[keep]
            if tokens.said is not None:
                part["said"][:] = tokens.said[keep]
    return part


def kept_offsets(tokens: Tokens, keep: np.ndarray) -> np.ndarray:
    """Where each row begins when only the kept tokens are stored, int64 [N+1]."""
    return np.concatenate([[0], np.cumsum(keep)])[tokens.offsets]


def write_rows(x: h5py.Dataset, values: np.ndarray, rows: Sequence[int]) -> None:
    """Scatter [b, d] values to their rows: row i of the artefact is row i of the dataset."""
    order = np.argsort(rows)
    x[np.asarray(rows)[order]] = values[order]


def write_ragged(
    x: h5py.Dataset, values: np.ndarray, rows: Sequence[int], offsets: np.ndarray
) -> None:
    """Scatter the kept tokens of some rows, in that order in `values`, to their places."""
    at = 0
    for i in rows:
        low, high = int(offsets[i]), int(offsets[i + 1])
        x[low:high] = values[at : at + high - low]
        at += high - low


@dataclass(frozen=True)
class Activations:
    """An open activation artefact.

    x: [N, d], or [T, d] for position `tokens` (float32, float16, or uint16 bfloat16 bits);
    n_tokens: int32 [N], tokens that the model read. For position `tokens`, else None: offsets: int64
    [N+1]; token_ids: int32 [T]; chars: int32 [T, 2], the characters of the row's text that each token
    covers, where the tokenizer tells; said: int16 [T, 3], role, message and part of each token of a
    conversation (`segments`).
    """

    x: h5py.Dataset
    n_tokens: np.ndarray
    offsets: np.ndarray | None
    token_ids: np.ndarray | None
    chars: np.ndarray | None = None
    said: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows of x as float32."""
        values = self.x[rows]
        if self.x.attrs.get("dtype") == "bfloat16":
            return bf16_to_float32(values)
        return values.astype(np.float32, copy=False)


@contextmanager
def open_activations(path: str | Path, key: str | None = None) -> Iterator[Activations]:
    """An activation artefact, opened to read block by block.

    Raises BadInput with the stored reason when it stands for a dataset that cannot be used.
    """
    with store.open_h5(path, key) as f:
        ragged = "offsets" in f
        yield Activations(
            f["x"],
            f["n_tokens"][:],
            f["offsets"][:] if ragged else None,
            f["token_ids"][:] if ragged else None,
            *(f[name][:] if name in f else None for name in ("chars", "said")),
        )


def load_activations(path: str | Path, key: str | None = None) -> np.ndarray:
    """All of x as float32, [N, d]."""
    with open_activations(path, key) as a:
        return a[:]
