"""The weights of one SAE, read by positioned reads, block of latents by block of latents.

Memory maps count as resident memory and crawl in a full cgroup, and no library slice reads a file
larger than memory well; `preadv` with read-ahead does both. Everything comes out as float32.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.sae.formats import Sae, find, has
from actprobe.sae.headers import AWAY, odd, require_tensors
from actprobe.sae.tensors import SIZES, Tensor, tensors

Floats = NDArray[np.float32]

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_GATHER = 1 << 25  # bytes of decoder rows held at a time
_BETWEEN = 3  # rows that may lie between two that are read together


class File:
    """Positioned reads from one file; `bytes_read` counts them."""

    def __init__(self, path: str | Path):
        self.path, self.bytes_read = str(path), 0
        self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._fd)

    def into(self, out: NDArray[Any], offset: int) -> None:
        """Fill the contiguous array `out` from `offset`. Raises BadInput when the file ends."""
        view = memoryview(out.data).cast("B")
        at = 0
        while at < len(view):
            n = os.preadv(self._fd, [view[at:]], offset + at)
            if n == 0:
                raise BadInput(
                    f"{self.path}: cut short: it ends at byte {offset + at:,}, "
                    f"{len(view) - at:,} bytes before the end of a tensor"
                )
            at += n
        self.bytes_read += at

    def soon(self, offset: int, length: int) -> None:
        """Ask the system to read ahead."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)


class Scratch:
    """Buffers that the matrices of one SAE share: new memory costs as much as reading into it."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def of(self, size: int, dtype: str) -> NDArray[Any]:
        """An array of this size, which the next one of its dtype overwrites."""
        if len(self._held.get(dtype, ())) < size:
            self._held[dtype] = np.empty(size, dtype)
        return self._held[dtype][:size]


class Matrix:
    """A stored [d, F] matrix (or [F, d], latents_first) read in blocks of latents."""

    def __init__(
        self, file: File, name: str, tensor: Tensor, latents_first: bool, scratch: Scratch
    ):
        self._file, self._name, self._tensor, self._scratch = file, name, tensor, scratch
        self.latents_first = latents_first
        self.d, self.n = tensor.shape[::-1] if latents_first else tensor.shape
        self.itemsize = SIZES[tensor.dtype]

    def block(self, low: int, high: int) -> Floats:
        """Columns of latents low..high as float32 [d, high - low].

        The array is a view of a buffer that the next call, of any matrix of this SAE, fills again.
        Raises BadInput for a weight
        that is not finite: its latent would silently never fire.
        """
        out = self._block(low, high)
        self._require_finite(out, 0, np.arange(low, high))
        return out

    def _require_finite(self, w: Floats, axis: int, latents: NDArray[np.int64]) -> None:
        """Sums tell fast; those of large weights may overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            doubtful = np.flatnonzero(~np.isfinite(w.sum(axis=axis)))
        for i in doubtful.tolist():
            if not np.isfinite(w.take(i, 1 - axis)).all():
                raise BadInput(
                    f"{self._file.path}: {self._name}: a weight of latent {latents[i]} is not "
                    f"finite{AWAY}"
                )

    def _block(self, low: int, high: int) -> Floats:
        n = high - low
        raw = self._buffer(self.d * n * self.itemsize).view(_NUMPY[self._tensor.dtype])
        if self.latents_first:
            self._file.into(raw, self._at(low, 0))
            return self._upcast(raw).reshape(n, self.d).T
        rows = raw.reshape(self.d, n)
        for i in range(self.d):
            self._file.into(rows[i], self._at(low, i))
        return self._upcast(raw).reshape(self.d, n)

    def prefetch(self, low: int, high: int) -> None:
        """Start reading the block ahead of time."""
        pieces = 1 if self.latents_first else self.d
        length = (high - low) * self.itemsize * (self.d if self.latents_first else 1)
        for i in range(pieces):
            self._file.soon(self._at(low, i), length)

    def rows(self, latents: NDArray[np.int64]) -> Floats:
        """Float32 [len(latents), d] of ascending latents; only where the latents come first.

        Neighbours are read in one go, with what little lies between them. Raises BadInput for a
        weight that is not finite.
        """
        raw = np.empty((len(latents), self.d), _NUMPY[self._tensor.dtype])
        most = max(1, _GATHER // (self.d * self.itemsize * (1 + _BETWEEN)))
        edges = [0, *(np.flatnonzero(np.diff(latents) > _BETWEEN + 1) + 1).tolist(), len(latents)]
        for low, high in itertools.pairwise(edges):
            for a in range(low, high, most):
                b = min(a + most, high)
                self._run(latents[a:b], raw[a:b])
        out = _float32(raw, self._tensor.dtype)
        self._require_finite(out, 1, latents)
        return out

    def _run(self, latents: NDArray[np.int64], out: NDArray[Any]) -> None:
        first, n = int(latents[0]), int(latents[-1] - latents[0]) + 1
        if n == len(latents):
            self._file.into(out, self._at(first, 0))
            return
        both = self._buffer(n * self.d * self.itemsize).view(out.dtype).reshape(n, self.d)
        self._file.into(both, self._at(first, 0))
        np.take(both, latents - first, axis=0, out=out)

    def lines(self, low: int, high: int) -> Floats:
        """Float32 [high - low, F], dimensions low..high of every latent; only where these come last.

        Raises BadInput for a weight that is not finite.
        """
        raw = np.empty((high - low, self.n), _NUMPY[self._tensor.dtype])
        self._file.into(raw, self._at(0, low))
        out = _float32(raw, self._tensor.dtype)
        self._require_finite(out, 0, np.arange(self.n))
        return out

    def _at(self, latent: int, i: int) -> int:
        index = latent * self.d + i if self.latents_first else i * self.n + latent
        return self._tensor.offset + index * self.itemsize

    def _buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        return self._scratch.of(n_bytes, "u1")

    def _upcast(self, raw: NDArray[Any]) -> Floats:
        if self._tensor.dtype == "F32":
            return raw
        out = self._scratch.of(raw.size, "f4")
        if self._tensor.dtype == "BF16":
            np.left_shift(raw, 16, out=out.view("<u4"), dtype="<u4")
        else:
            out[:] = raw
        return out


def _float32(raw: NDArray[Any], dtype: str) -> Floats:
    if dtype == "BF16":
        return (raw.astype("<u4") << 16).view("<f4")
    return raw.astype(np.float32, copy=False)


class Weights:
    """The open weights of one SAE; `close` it, or use it in a `with`.

    Raises BadInput when a tensor that the architecture or the reconstruction needs is missing, has
    another shape than the config says, or a dtype that is not a float.
    """

    def __init__(self, sae: Sae):
        self.sae = sae
        self._found = tensors(sae.weights)
        self._files: dict[str, File] = {}
        self._scratch = Scratch()
        if any(t.offset < 0 for t in self._found.values()):  # planned before it was fetched
            raise BadInput(
                f"{sae.weights}: compressed, so it cannot be read in place; run again: now that it is "
                "here it is planned to be converted first"
            )
        require_tensors(sae, self._found)
        self._refuse_odd()
        self.encoder = self._matrix("W_enc")

    def _refuse_odd(self) -> None:
        """Refuse what the SAE does not use, unless its values say that it is not in use."""
        if has(self._found, "scaling_factor") and np.any(self.vector("scaling_factor") != 1):
            raise BadInput(
                f"{self.sae.weights}: not supported: a finetuning scaling_factor other than one"
            )
        for name in odd(self.sae, self._found):
            if not self._is_idle(self._found[name]):
                raise BadInput(
                    f"{self.sae.weights}: not supported: it holds {name}, which an SAE of this kind "
                    f"({self.sae.architecture}) does not use here, and which may change its codes"
                )

    def _is_idle(self, t: Tensor) -> bool:
        """True for a buffer that was never set (NaN), or is no float."""
        if t.dtype not in SIZES:
            return True
        if np.prod(t.shape, dtype=np.int64) > _GATHER:
            return False
        return bool(np.isnan(self._read(t)).all())

    def _open(self, t: Tensor) -> File:
        if t.file not in self._files:
            self._files[t.file] = File(t.file)
        return self._files[t.file]

    def _matrix(self, name: str) -> Matrix:
        alias, latents_first = self._find(name)
        t = self._found[alias]
        return Matrix(self._open(t), alias, t, latents_first, self._scratch)

    def _find(self, name: str) -> tuple[str, bool]:
        return find(self._found, name, self.sae.weights, self.sae.layout, self.sae.suffix)

    @property
    def decoder(self) -> Matrix:
        return self._matrix("W_dec")

    @cached_property
    def b_dec(self) -> Floats:
        """The decoder's bias [d]."""
        return self.vector("b_dec")

    def vector(self, name: str) -> Floats:
        """A whole vector as float32. Raises BadInput for a value that is no number, or infinite.

        A threshold may be infinite: its latent never fires.
        """
        alias, _ = self._find(name)
        out = self._read(self._found[alias])
        bad = np.isnan(out) if name in ("threshold", "log_threshold") else ~np.isfinite(out)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            what = "no number (NaN)" if np.isnan(out.reshape(-1)[first]) else "infinite"
            raise BadInput(f"{self.sae.weights}: value {first} of {alias} is {what}{AWAY}")
        return out

    def _read(self, t: Tensor) -> Floats:
        raw = np.empty(t.shape, _NUMPY[t.dtype])
        self._open(t).into(raw.reshape(-1), t.offset)
        with np.errstate(over="ignore"):
            return _float32(raw, t.dtype)

    def decoder_norms(self) -> Floats:
        """L2 norm of each latent's decoder vector [F]; reads W_dec in blocks."""
        decoder = self.decoder
        step = max(1, _GATHER // (4 * decoder.d))
        norms = np.empty(decoder.n, np.float32)
        for low in range(0, decoder.n, step):
            high = min(low + step, decoder.n)
            w = decoder.block(low, high)
            norms[low:high] = np.sqrt(np.einsum("dn,dn->n", w, w, dtype=np.float64))
        return norms

    def bytes_read(self) -> Mapping[str, int]:
        """Bytes read so far, by file."""
        return {f.path: f.bytes_read for f in self._files.values()}

    def close(self) -> None:
        for f in self._files.values():
            f.close()
        self._files.clear()

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self.close()
