"""Reading the weights of LoRA files, each file in one read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actprobe.errors import BadInput
from actprobe.lora.adapter import Adapter, Module, read_adapter, to_float
from actprobe.lora.compute import Factors, Floats
from actprobe.lora.header import Tensor


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
    return {name: _factors(path, data, name, m) for name, m in adapter.modules.items()}


def _factors(path: str | Path, data: memoryview, name: str, m: Module) -> Factors:
    down = _tensor(path, data, m.down, f"{name}:down").reshape(m.rank, m.d_in)
    up = _tensor(path, data, m.up, f"{name}:up").reshape(m.d_out, m.rank)
    return Factors(down, up, m.scale)


def _tensor(path: str | Path, data: memoryview, t: Tensor, name: str) -> Floats:
    x = to_float(data[t.start : t.stop], t.dtype)
    if not np.isfinite(x).all():
        raise BadInput(f"{path}: NaN or infinity in {name}")
    return x
