"""A loaded model as it was before adapters were put onto it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Before:
    """The state of a model, to go back to.

    Makes copies of the tensors of the modules that are going to be changed, and leaves the copies to
    whoever changes them: the tensors themselves are put aside, so that no rounding can reach them.
    """

    def __init__(self, model: nn.Module, changed: Iterable[nn.Module]):
        self._attributes = [(m, _shallow(vars(m))) for m in model.modules()]
        self._tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for module in changed:
            for tensor in (*module.parameters(), *module.buffers()):
                if id(tensor) not in self._tensors:  # two modules may have one in common
                    self._tensors[id(tensor)] = (tensor, tensor.data)
                    tensor.data = tensor.data.clone()

    def restore(self) -> None:
        """Put everything back: submodules, parameters, hooks, and what the tensors held."""
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(_shallow(attributes))
        for tensor, data in self._tensors.values():
            tensor.data = data


def _shallow(attributes: dict[str, Any]) -> dict[str, Any]:
    """A module's attributes; its dictionaries (submodules, parameters, hooks) and sets as copies."""
    return {k: copy.copy(v) if isinstance(v, dict | set) else v for k, v in attributes.items()}
