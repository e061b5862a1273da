"""Weights that cannot be read in place, rewritten once as contiguous arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from actprobe import store
from actprobe.errors import BadInput
from actprobe.sae import pickles
from actprobe.sae.artefact import facts_of
from actprobe.sae.formats import Sae
from actprobe.sae.tensors import SIZES, Tensor, tensors

_PIECE = 1 << 25  # bytes in memory at a time


def convert(sae: Sae, path: str | Path, spec: Mapping[str, Any]) -> Path:
    """Stream all float tensors of an SAE's weights file into an artefact; returns its sealed part.

    Names, shapes and values stay as they are (bfloat16 becomes float32). One tensor is one unit of
    work. Raises BadInput for a file that is cut short or not what its name says.
    """
    source = (_Pickle if pickles.is_pickle(sae.weights) else _Archive)(sae.weights)
    names = list(source.arrays)
    with store.Part(path, spec, source.arrays, len(names), facts_of(sae)) as part:
        for unit in part.pending:
            name = names[unit]
            at = 0
            for piece in source.pieces(name):
                if piece.ndim:
                    part[name][at : at + len(piece)] = piece
                    at += len(piece)
                else:
                    part[name][()] = piece
            part.mark(unit)
        return part.finish()


class _Archive:
    """A compressed .npz: members can only be read from their beginning."""

    def __init__(self, path: str):
        self._path = path
        found: dict[str, Tensor] = tensors(path)
        self.arrays = {
            name: (t.shape, {"F64": "f8", "F32": "f4", "F16": "f2"}[t.dtype])
            for name, t in found.items()
            if t.dtype in SIZES
        }

    def pieces(self, name: str) -> Iterator[NDArray]:
        shape, dtype = self.arrays[name]
        width = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        step = max(1, _PIECE // width)
        try:
            with zipfile.ZipFile(self._path) as z, z.open(f"{name}.npy") as f:
                major, _ = npy.read_magic(f)
                (npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0)(f)
                for low in range(0, shape[0] if shape else 1, step):
                    rows = min(step, shape[0] - low) if shape else 1
                    piece = np.frombuffer(f.read(rows * width), dtype)
                    yield piece.reshape(rows, *shape[1:]) if shape else piece.reshape(())
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as e:
            raise BadInput(f"{self._path}: {name}: damaged or cut short ({e})") from None


class _Pickle:
    """A PyTorch state dict, mapped rather than loaded; only tensors are unpickled."""

    def __init__(self, path: str):
        self._state = {k: v for k, v in pickles.load(path).items() if v.is_floating_point()}
        self.arrays = {k: (tuple(v.shape), _dtype(v)) for k, v in self._state.items()}

    def pieces(self, name: str) -> Iterator[NDArray]:
        value = self._state[name]
        dtype = self.arrays[name][1]
        if value.ndim == 0:
            yield value.float().numpy().astype(dtype)
            return
        step = max(1, _PIECE // max(1, value[0].numel() * 4)) if len(value) else 1
        for low in range(0, len(value), step):
            piece = value[low : low + step]
            yield (piece.float() if dtype == "f4" else piece).contiguous().numpy()


def _dtype(value: Any) -> str:
    return {"torch.float64": "f8", "torch.float16": "f2"}.get(str(value.dtype), "f4")
