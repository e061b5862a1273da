"""Which tensor of a GGUF file is which parameter, and what the converter of llama.cpp did to it.

transformers has two tables: conversions (`GGUF_ARCHS`), and processors for the older architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.integrations.gguf import GGUF_ARCHS, get_gguf_conversion_mapping
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)


class Naming(Protocol):
    """How tensors become the parameters of one model."""

    def parameter(self, tensor: str) -> str | None:
        """The parameter that a tensor is, or is a part of; None for no parameter."""

    def value(self, parameter: str, tensors: Mapping[str, np.ndarray]) -> torch.Tensor:
        """A parameter out of the float32 values of all its tensors."""


def naming(architecture: str, model: Any) -> Naming:
    """The table for an architecture. model: of transformers, on the meta device."""
    kind = _Conversions if architecture in GGUF_ARCHS else _Processors
    return kind(architecture, model)


class _Processors:
    """The table of the older architectures."""

    def __init__(self, architecture: str, model: Any):
        kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
        self._processor = kind(config=model.config.to_dict())
        self._names = get_gguf_hf_weights_map(model, self._processor)

    def parameter(self, tensor: str) -> str | None:
        return self._names.get(tensor) or self._names.get(tensor.removesuffix(".weight"))

    def value(self, parameter: str, tensors: Mapping[str, np.ndarray]) -> torch.Tensor:
        made: dict[str, Any] = {"tensors": {}}
        for name, values in tensors.items():
            result = self._processor.process(
                weights=values,
                name=name,
                tensor_key_mapping=self._names,
                parsed_parameters=made,
            )
            if result.name is not None:
                made["tensors"][parameter] = torch.from_numpy(np.ascontiguousarray(result.weights))
        return made["tensors"][parameter]


class _Conversions:
    """The table of the newer architectures."""

    def __init__(self, architecture: str, model: Any):
        mapping = get_gguf_conversion_mapping(architecture, model.config)
        self._renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
        self._converters = [m for m in mapping if isinstance(m, WeightConverter)]

    def _found(self, tensor: str) -> tuple[str, str | None]:
        return rename_source_key(tensor, self._renamings, self._converters)

    def parameter(self, tensor: str) -> str | None:
        return self._found(tensor)[0]

    def value(self, parameter: str, tensors: Mapping[str, np.ndarray]) -> torch.Tensor:
        found: dict[str, Any] = {}
        pattern = None
        for name, values in tensors.items():
            pattern = self._found(name)[1]
            found[pattern or parameter] = torch.from_numpy(np.ascontiguousarray(values))
        for converter in self._converters:
            if pattern not in converter.source_patterns:
                continue
            for operation in converter.operations:
                found = operation.convert(
                    found,
                    source_patterns=converter.source_patterns,
                    target_patterns=converter.target_patterns,
                    full_layer_name=parameter,
                )
        (value,) = found.values()
        return value
