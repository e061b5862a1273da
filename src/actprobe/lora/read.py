"""Reading the weights of LoRA files, each file in one read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actprobe.errors import BadInput
from actprobe.lora.adapter import Adapter, Module, read_adapter, to_float
from actprobe.lora.compute import Factors, Floats
from actprobe.lora.header import ITEMSIZE, Tensor


def read_lora(path: str | Path, config: str | Path | None, alpha: str) -> dict[str, Factors]:
    """Factors of every module of a file, float32, convolutions flattened.

    Raises BadInput naming the file: not a plain LoRA, cut short, NaN or infinity in a tensor.
    """
    adapter = read_adapter(path, config, alpha)
    return factors(path, adapter)


def factors(path: str | Path, adapter: Adapter) -> dict[str, Factors]:
    """`read_lora` for a file whose header is read already."""
    try:
        data = memoryview(Path(path).read_bytes())
    except OSError as e:
        raise BadInput(f"{path}: {e}") from None
    modules = adapter.modules.items()
    if not _finite(data, [t for _, m in modules for t in (m.down, m.up)]):
        bad = [f"{n}:{s}" for n, m in modules for s in ("down", "up")
               if not _finite(data, [getattr(m, s)])]  # fmt: skip
        if bad:
            raise BadInput(f"{path}: NaN or infinity in {bad[0]}")
    return {
        name: Factors(
            _values(data, m.down).reshape(m.rank, m.d_in),
            _values(data, m.up).reshape(m.d_out, m.rank),
            m.scale,
        )
        for name, m in modules
    }


def _values(data: memoryview, t: Tensor) -> Floats:
    return to_float(data[t.start : t.stop], t.dtype)


def _finite(data: memoryview, tensors: list[Tensor]) -> bool:
    """True when the tensors, and what lies between them, are finite: one look at a whole file."""
    first, size = tensors[0], ITEMSIZE[tensors[0].dtype]
    if any(t.dtype != first.dtype or (t.start - first.start) % size for t in tensors):
        return False
    start, stop = min(t.start for t in tensors), max(t.stop for t in tensors)
    return bool(np.isfinite(to_float(data[start:stop], first.dtype)).all())
