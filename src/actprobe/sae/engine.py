"""Where products are computed: NumPy's BLAS on the CPU, torch on a GPU.

Both give the same entries up to float32 rounding. Only non-zero entries leave a device.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import ConfigError
from actprobe.sae.pieces import ROWS

Entries = tuple[NDArray[np.uint32], NDArray[np.float32]]


class Engine(Protocol):
    """Products and choices on one device; `put` moves float32 arrays there.

    strip: rows of a product that are looked at together.
    """

    name: str
    strip: int

    def put(self, a: NDArray[np.float32]) -> Any: ...

    def product(self, x: Any, w: Any) -> Any:
        """x [r, d] times w [d, c]; the result may be overwritten by the next call."""

    def kept(self, mask: Any, value: Any) -> Entries:
        """Flat indices where the mask holds, ascending, and the values there."""

    def largest(self, size: Any, floor: NDArray[np.float32], k: int) -> Any:
        """Mask of the entries that can be among their row's k largest, all above floor [r]."""


class Cpu:
    """NumPy: its BLAS is the fastest float32 product here (`kernel.prefer_avx512`)."""

    name = "numpy"
    strip = 64  # of a tile's 4096 columns: 1 MB, inside a core's cache

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.float32)

    def put(self, a: NDArray[np.float32]) -> NDArray[np.float32]:
        return a

    def product(self, x: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray[np.float32]:
        size = len(x) * w.shape[1]
        if len(self._buffer) < size:
            self._buffer = np.empty(size, np.float32)
        out = self._buffer[:size].reshape(len(x), w.shape[1])
        return np.matmul(x, w, out=out)

    def kept(self, mask: NDArray[np.bool_], value: NDArray[np.float32]) -> Entries:
        flat = np.flatnonzero(mask)
        return flat.astype(np.uint32), value.reshape(-1)[flat]

    def largest(
        self, size: NDArray[np.float32], floor: NDArray[np.float32], k: int
    ) -> NDArray[np.bool_]:
        mask = size > floor[:, None]
        n, width = size.shape
        if width > k and np.count_nonzero(mask) > 2 * k * n:
            kth = np.partition(size, width - k, axis=1)[:, width - k]
            mask &= size >= kth[:, None]
        return mask


class Torch:
    """torch on cuda, mps or cpu; `product` is float32, tf32 (cuda) or bfloat16."""

    strip = ROWS

    def __init__(self, device: str, product: str):
        import torch

        if product == "tf32" and device != "cuda":
            raise ConfigError(f"product: tf32 needs a cuda device, not {device}")
        torch.backends.cuda.matmul.allow_tf32 = product == "tf32"
        self._torch, self._device = torch, device
        self._dtype = torch.bfloat16 if product == "bfloat16" else torch.float32
        self.name = f"torch {device}"

    def put(self, a: NDArray[np.float32]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(a)).to(self._device)

    def product(self, x: Any, w: Any) -> Any:
        return (x.to(self._dtype) @ w.to(self._dtype)).float()

    def kept(self, mask: Any, value: Any) -> Entries:
        flat = mask.reshape(-1).nonzero()[:, 0]
        values = value.reshape(-1)[flat]
        return flat.cpu().numpy().astype(np.uint32), values.cpu().numpy()

    def largest(self, size: Any, floor: NDArray[np.float32], k: int) -> Any:
        mask = size > self.put(floor)[:, None]
        if size.shape[1] > k:
            mask &= size >= size.topk(k, dim=1).values[:, -1:]
        return mask


def engine(device: str, product: str) -> Engine:
    """The engine of a device: auto takes cuda, then mps, then cpu."""
    if device == "auto":
        device = _best_device()
    return Cpu() if (device, product) == ("cpu", "float32") else Torch(device, product)


def _best_device() -> str:
    """Torch is asked only where a GPU can be: importing it costs a second and 250 MB."""
    gpus = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, WSL, AMD
    if sys.platform != "darwin" and not any(map(os.path.exists, gpus)):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
