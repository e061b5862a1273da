"""The work between the matrix products of a transformers model, with fewer temporaries.

transformers writes this work to be trained: every operation makes a new tensor. Read from memory to
memory, it takes an eighth of a float32 forward pass on a CPU. Here the same operations run in the same
order on tensors that nobody else sees, so that every output is the same bit for bit
(`tests/unit/test_models_elementwise.py`); a pass takes some 2 % less (`benchmarks/extraction`).

A piece is replaced only where its source reads as the text below, which most decoders share; where
transformers changes a text or a model has its own, that piece stays as it is.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import nn

_NORM = """
def forward(self, hidden_states):
    input_dtype = hidden_states.dtype
    hidden_states = hidden_states.to(torch.float32)
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
    return self.weight * hidden_states.to(input_dtype)
"""

_MLP = """
def forward(self, x):
    down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
    return down_proj
"""

_ROTARY = """
def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
    cos = cos.unsqueeze(unsqueeze_dim)
    sin = sin.unsqueeze(unsqueeze_dim)
    q_embed = q * cos + rotate_half(q) * sin
    k_embed = k * cos + rotate_half(k) * sin
    return (q_embed, k_embed)
"""

_HALF = """
def rotate_half(x):
    x1 = x[..., :x.shape[-1] // 2]
    x2 = x[..., x.shape[-1] // 2:]
    return torch.cat((-x2, x1), dim=-1)
"""


def lighten(model: nn.Module) -> int:
    """Replace what is known in a model on a CPU that is only read; returns how many pieces were.

    Rotary positions are a function of the model's source file: all models of that file get the
    replacement.
    """
    by_type: dict[type, list[Any]] = defaultdict(list)
    for module in model.modules():
        if type(module).__module__.startswith("transformers."):
            by_type[type(module)].append(module)
    replaced = 0
    for kind, modules in by_type.items():
        new = _FORWARD.get(_text(kind.forward))  # type: ignore[attr-defined]
        for module in modules:
            if new is not None and "forward" not in vars(module):
                module.forward = MethodType(new, module)
                replaced += 1
    for source in {sys.modules[kind.__module__] for kind in by_type}:
        functions = [vars(source).get(n) for n in ("apply_rotary_pos_emb", "rotate_half")]
        if [_text(f) for f in functions] == [_ROTARY.strip(), _HALF.strip()]:
            source.apply_rotary_pos_emb = _rotary  # type: ignore[attr-defined]
            replaced += 1
    return replaced


def _text(function: Any) -> str | None:
    """A function's source as `ast.unparse` writes it, without annotations and docstring.

    None for what has no source, and for a decorated method, which may do more than its text says;
    transformers marks the rotary function with a decorator that returns the function itself.
    """
    try:
        [found] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(found, ast.FunctionDef):
        return None
    if found.decorator_list and [a.arg for a in found.args.args[:1]] == ["self"]:
        return None
    found.decorator_list, found.returns = [], None
    for argument in (*found.args.args, *found.args.kwonlyargs):
        argument.annotation = None
    if ast.get_docstring(found) is not None:
        del found.body[0]
    return ast.unparse(found)


def _norm(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    h = hidden_states.to(torch.float32)
    scale = torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    out = (h * scale).to(hidden_states.dtype)
    # With weights of a wider type the product would be of theirs.
    return out.mul_(self.weight) if self.weight.dtype == out.dtype else self.weight * out


def _mlp(self: Any, x: torch.Tensor) -> torch.Tensor:
    gate = self.act_fn(self.gate_proj(x))
    return self.down_proj(gate.mul_(self.up_proj(x)))


def _rotary(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    out, half = x * cos, x.shape[-1] // 2
    out[..., :half].sub_(x[..., half:] * sin[..., :half])
    out[..., half:].add_(x[..., :half] * sin[..., half:])
    return out


_FORWARD: Mapping[str | None, Callable[..., torch.Tensor]] = {
    _NORM.strip(): _norm,
    _MLP.strip(): _mlp,
}
