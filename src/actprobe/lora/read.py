"""Reading the weights of LoRA files, each file in one read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actprobe.errors import BadInput, bad_file
from actprobe.files.safetensors import ITEMSIZE, Tensor
from actprobe.lora.adapter import Adapter, read_adapter, to_float
from actprobe.lora.compute import Factors, Floats


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
        raise bad_file(path, e) from None
    values = _Values(data, [t for m in adapter.modules.values() for t in (m.down, m.up)])
    return {
        name: Factors(
            values.of(path, name, "down", m.down).reshape(m.rank, m.d_in),
            values.of(path, name, "up", m.up).reshape(m.d_out, m.rank),
            m.scale,
        )
        for name, m in adapter.modules.items()
    }


class _Values:
    """The numbers of some tensors of a file, checked to be finite.

    Where all have one dtype the file is converted and checked at once, which costs a tenth.
    """

    def __init__(self, data: memoryview, tensors: list[Tensor]):
        self._data, self._flat = data, None
        self._start, dtype = min(t.start for t in tensors), tensors[0].dtype
        self._size = ITEMSIZE[dtype]
        if all(t.dtype == dtype and not (t.start - self._start) % self._size for t in tensors):
            flat = to_float(data[self._start : max(t.stop for t in tensors)], dtype)
            self._flat = flat if np.isfinite(flat).all() else None

    def of(self, path: str | Path, module: str, side: str, t: Tensor) -> Floats:
        """The numbers of one tensor, flat. Raises BadInput naming it when one is not finite."""
        if self._flat is not None:
            start, stop = t.start - self._start, t.stop - self._start
            return self._flat[start // self._size : stop // self._size]
        x = to_float(self._data[t.start : t.stop], t.dtype)
        if not np.isfinite(x).all():
            raise BadInput(f"{path}: NaN or infinity in {module}:{side}")
        return x
