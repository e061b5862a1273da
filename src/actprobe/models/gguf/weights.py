"""Weights of a GGUF file by transformers' names: one after the other, the largest decides memory.

transformers' own reader holds the whole model in float32, and takes what is missing for fresh. Here its
tables (`naming`) are asked for one parameter at a time. Values are what `gguf.dequantize` gives.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape
from transformers import AutoModelForCausalLM

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Header, Tensor
from actprobe.models.gguf import rotary
from actprobe.models.gguf.naming import naming
from actprobe.models.gguf.stated import INSTEAD

Read = Callable[[str], np.ndarray]  # name of a tensor -> its bytes
_AT_ONCE = 1 << 20  # values


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model: transformers' name, shape, and the tensors that it is made of."""

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...]


def dequantized(t: Tensor, data: np.ndarray, what: str) -> np.ndarray:
    """float32 values of a tensor's bytes; a piece at a time, because formulas make copies."""
    kind = GGMLQuantizationType[t.kind]
    rows = data.reshape(quant_shape_to_byte_shape(t.shape, kind))
    rows = rows.reshape(-1, rows.shape[-1])
    out = np.empty((len(rows), t.shape[-1]), np.float32)
    step = max(1, _AT_ONCE // t.shape[-1])
    try:
        for low in range(0, len(rows), step):
            out[low : low + step] = dequantize(rows[low : low + step], kind)
    except NotImplementedError:
        raise BadInput(f"{what}: tensors of type {t.kind} cannot be dequantised") from None
    return out.reshape(t.shape)


class Weights:
    """The parameters of a model in a GGUF file.

    config: of transformers; architecture: the class that has these parameters. Raises BadInput for
    tensors that are missing, of another size, or that the model has no place for: before anything is
    read.
    """

    def __init__(self, config: Any, header: Header, what: str):
        self._header, self._what = header, what
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        self.architecture = type(model).__name__
        self._naming = naming(str(header.get("general.architecture")), model)
        self.parameters = self._arranged(model)

    def _arranged(self, model: Any) -> list[Parameter]:
        there = model.state_dict()
        tensors = self._header.tensors
        of: dict[str, list[str]] = defaultdict(list)
        left = []
        for name in tensors:
            target = self._naming.parameter(name)
            if target is not None and target in there:
                of[target].append(name)
            elif name not in rotary.TENSORS and not str(target).startswith("mtp."):
                left.append(name)
        if left:
            raise BadInput(
                f"{self._what}: the model has no place for tensor {left[0]} ({len(left)} such tensors); "
                f"{INSTEAD}"
            )
        tied = set(model.all_tied_weights_keys)
        wanted = {k: tuple(v.shape) for k, v in there.items() if k in of or k not in tied}
        if missing := [k for k in wanted if k not in of]:
            raise BadInput(
                f"{self._what}: missing tensors: there is none for {missing[0]} ({len(missing)} such "
                "parameters)"
            )
        for name, shape in wanted.items():
            if sum(math.prod(tensors[n].shape) for n in of[name]) != math.prod(shape):
                found = ", ".join(f"{n} {tensors[n].shape}" for n in of[name])
                raise BadInput(f"{self._what}: {found}, expected {shape} in all for {name}")
        return [Parameter(k, shape, tuple(of[k])) for k, shape in wanted.items()]

    def value(self, p: Parameter, read: Read) -> torch.Tensor:
        """A parameter in float32."""
        found = self._naming.value(
            p.name,
            {n: dequantized(self._header.tensors[n], read(n), self._what) for n in p.tensors},
        )
        if [n for n in found.shape if n > 1] == [n for n in p.shape if n > 1]:
            return found.reshape(p.shape)  # files keep or drop dimensions of 1
        raise BadInput(f"{self._what}: {p.name} is {tuple(found.shape)}, expected {p.shape}")

    def rounded(self, read: Read, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """All parameters in their order, in a dtype. Raises BadInput for one that is not finite."""
        for p in self.parameters:
            found = self.value(p, read)
            if not _finite(found):
                raise BadInput(
                    f"{self._what}: {p.name} holds what is no number: the file is damaged, or its "
                    "pieces are out of order"
                )
            found = found.to(dtype)
            if not _finite(found):
                raise BadInput(
                    f"{self._what}: {p.name} is too large for {dtype}; set dtype: bfloat16"
                )
            yield found


def _finite(values: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(v)) for v in torch.aminmax(values))  # no copy; NaN is both


def by_type(header: Header) -> Mapping[str, int]:
    """How many tensors there are of each type."""
    return dict(sorted(Counter(t.kind for t in header.tensors.values()).items()))
