"""Activation artefacts: what stands in the file, and how it is read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from actprobe import store


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 bits (uint16), exact."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Activations:
    """An open activation artefact.

    x: [N, d], or [T, d] for position `tokens` (float32, float16, or uint16 bfloat16 bits);
    n_tokens: int32 [N], tokens that the model read; offsets: int64 [N+1] and token_ids: int32 [T]
    for position `tokens`, else None.
    """

    x: h5py.Dataset
    n_tokens: np.ndarray
    offsets: np.ndarray | None
    token_ids: np.ndarray | None

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
        )


def load_activations(path: str | Path, key: str | None = None) -> np.ndarray:
    """All of x as float32, [N, d]."""
    with open_activations(path, key) as a:
        return a[:]
