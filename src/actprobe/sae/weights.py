"""The weights of one SAE, read by positioned reads, block of latents by block of latents.

Memory maps count as resident memory and crawl in a full cgroup, and no library slice reads a file
larger than memory well; `preadv` with read-ahead does both. Everything comes out as float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from actprobe.errors import BadInput
from actprobe.sae.architectures import needs
from actprobe.sae.formats import Sae, find
from actprobe.sae.tensors import SIZES, Tensor, tensors

Floats = NDArray[np.float32]

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_GATHER = 1 << 25  # bytes of decoder rows held at a time


class File:
    """Positioned reads from one file; `bytes_read` counts them."""

    def __init__(self, path: str | Path):
        self.path, self.bytes_read = str(path), 0
        self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._fd)

    def into(self, out: NDArray, offset: int) -> None:
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


class Matrix:
    """A stored [d, F] matrix (or [F, d], latents_first) read in blocks of latents."""

    def __init__(self, file: File, tensor: Tensor, latents_first: bool):
        self._file, self._tensor, self.latents_first = file, tensor, latents_first
        self.d, self.n = tensor.shape[::-1] if latents_first else tensor.shape
        self.itemsize = SIZES[tensor.dtype]
        self._raw = np.empty(0, "u1")
        self._float = np.empty(0, np.float32)

    def block(self, low: int, high: int) -> Floats:
        """Columns of latents low..high as float32 [d, high - low].

        The array is a view of a buffer that the next call fills again. Raises BadInput for a weight
        that is not finite: its latent would silently never fire.
        """
        out = self._block(low, high)
        bad = np.flatnonzero(~np.isfinite(out.sum(axis=0)))
        if len(bad):
            raise BadInput(f"{self._file.path}: a weight of latent {low + bad[0]} is not finite")
        return out

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

    def rows(self, latents: NDArray) -> Floats:
        """Float32 [len(latents), d]; only for a matrix stored with the latents first."""
        raw = np.empty((len(latents), self.d), _NUMPY[self._tensor.dtype])
        for row, latent in zip(raw, latents.tolist(), strict=True):
            self._file.into(row, self._at(latent, 0))
        return _float32(raw, self._tensor.dtype)

    def lines(self) -> Iterator[Floats]:
        """Each of the d rows [F] of a matrix stored with the latents last; valid until the next."""
        raw = np.empty(self.n, _NUMPY[self._tensor.dtype])
        for i in range(self.d):
            self._file.into(raw, self._at(0, i))
            yield _float32(raw, self._tensor.dtype)

    def _at(self, latent: int, i: int) -> int:
        index = latent * self.d + i if self.latents_first else i * self.n + latent
        return self._tensor.offset + index * self.itemsize

    def _buffer(self, n_bytes: int) -> NDArray:
        if len(self._raw) < n_bytes:
            self._raw = np.empty(n_bytes, "u1")
        return self._raw[:n_bytes]

    def _upcast(self, raw: NDArray) -> Floats:
        if self._tensor.dtype == "F32":
            return raw
        if len(self._float) < raw.size:
            self._float = np.empty(raw.size, np.float32)
        out = self._float[: raw.size]
        if self._tensor.dtype == "BF16":
            np.left_shift(raw, 16, out=out.view("<u4"), dtype="<u4")
        else:
            out[:] = raw
        return out


def _float32(raw: NDArray, dtype: str) -> Floats:
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
        matrix = (sae.d_in, sae.d_sae)
        shapes = {"W_enc": matrix, "W_dec": matrix, "b_dec": (sae.d_in,)}
        decoder = [] if sae.transcoder else ["W_dec", "b_dec"]
        for name in dict.fromkeys(needs(sae) + decoder):
            self._check(name, shapes.get(name, (sae.d_sae,)))
        self._refuse_scaling()
        self.encoder = self._matrix("W_enc")

    def _check(self, name: str, expected: tuple[int, ...]) -> None:
        alias, latents_first = find(self._found, name, self.sae.weights)
        t = self._found[alias]
        if t.dtype not in SIZES:
            raise BadInput(f"{self.sae.weights}: {alias} is {t.dtype}; expected {', '.join(SIZES)}")
        if t.offset < 0:  # planned before it was fetched
            raise BadInput(
                f"{self.sae.weights}: compressed, so it cannot be read in place; run again: now that "
                "it is here it is planned to be converted first"
            )
        shape = expected[::-1] if latents_first else expected
        if t.shape not in (shape, ()) or (t.shape == () and name != "threshold"):
            raise BadInput(
                f"{self.sae.weights}: {alias} has shape {list(t.shape)}, expected {list(shape)}"
            )

    def _refuse_scaling(self) -> None:
        if "scaling_factor" in self._found and np.any(self.vector("scaling_factor") != 1):
            raise BadInput(
                f"{self.sae.weights}: not supported: a finetuning scaling_factor other than one"
            )

    def _open(self, t: Tensor) -> File:
        if t.file not in self._files:
            self._files[t.file] = File(t.file)
        return self._files[t.file]

    def _matrix(self, name: str) -> Matrix:
        alias, latents_first = find(self._found, name, self.sae.weights)
        t = self._found[alias]
        return Matrix(self._open(t), t, latents_first)

    @property
    def decoder(self) -> Matrix:
        return self._matrix("W_dec")

    def vector(self, name: str) -> Floats:
        """A whole vector as float32. Raises BadInput for a value that is no number."""
        alias, _ = find(self._found, name, self.sae.weights)
        t = self._found[alias]
        raw = np.empty(t.shape, _NUMPY[t.dtype])
        self._open(t).into(raw.reshape(-1), t.offset)
        out = _float32(raw, t.dtype)
        if np.isnan(out).any():
            raise BadInput(f"{self.sae.weights}: {alias} holds a value that is no number (NaN)")
        return out

    def decoder_norms(self) -> Floats:
        """L2 norm of each latent's decoder vector, at least 1e-8, [F]; reads W_dec in blocks."""
        decoder = self.decoder
        step = max(1, _GATHER // (4 * decoder.d))
        norms = np.empty(decoder.n, np.float32)
        for low in range(0, decoder.n, step):
            high = min(low + step, decoder.n)
            w = decoder.block(low, high)
            norms[low:high] = np.sqrt(np.einsum("dn,dn->n", w, w, dtype=np.float64))
        return np.maximum(norms, np.float32(1e-8))

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
