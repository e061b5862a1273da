"""Weights that cannot be read in place, rewritten once as contiguous arrays."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.files import as_float32
from actprobe.sae import pickles
from actprobe.sae.artefact import facts_of
from actprobe.sae.formats import Sae
from actprobe.sae.tensors import SIZES, Tensor, tensors

_PIECE = 1 << 25  # bytes in memory at a time

Arrays = dict[str, tuple[tuple[int, ...], str]]  # shape and NumPy dtype by name


def convert(sae: Sae, path: str | Path, spec: Mapping[str, Any]) -> Path:
    """Stream all float tensors of an SAE's weights file into an artefact; returns its sealed part.

    Names, shapes and values stay as they are (bfloat16 becomes float32). One tensor is one unit of
    work. Raises BadInput for a file that is cut short or not what its name says.
    """
    with contextlib.ExitStack() as stack:
        source: _Pickle | _Archive
        if pickles.is_pickle(sae.weights):
            source = _Pickle(stack.enter_context(pickles.opened(sae.weights)))
        else:
            source = _Archive(sae.weights)
        return _write(source, sae, path, spec)


def _write(source: _Pickle | _Archive, sae: Sae, path: str | Path, spec: Mapping[str, Any]) -> Path:
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
        self.arrays: Arrays = {
            name: (t.shape, {"F64": "f8", "F32": "f4", "F16": "f2"}[t.dtype])
            for name, t in found.items()
            if t.dtype in SIZES
        }

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
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
    """A PyTorch state dict, mapped rather than loaded."""

    def __init__(self, state: pickles.State):
        self._state = state
        kinds = {"float64": "f8", "float16": "f2"}
        self.arrays: Arrays = {
            n: (a.shape, kinds.get(a.dtype, "f4")) for n, a in state.arrays.items()
        }
        self.arrays |= dict.fromkeys(state.numbers, ((), "f8"))

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        if name in self._state.numbers:
            yield np.array(self._state.numbers[name])
            return
        value = self._state.arrays[name]
        size = int(np.prod(value.shape[1:], dtype=np.int64)) * 8
        step = max(1, _PIECE // max(1, size))
        for low in range(0, value.shape[0], step):
            piece = value.rows(low, min(low + step, value.shape[0]))
            yield as_float32(piece, value.dtype) if self.arrays[name][1] == "f4" else piece
