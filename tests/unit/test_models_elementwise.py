"""Lighter pieces of transformers' layers give the same bits as the pieces that they replace."""

from __future__ import annotations

import sys
from types import MethodType

import pytest
import torch
import transformers
from models_tiny import FAMILIES
from torch import nn

from actprobe.models import elementwise


def original(text: str):
    """The function that a piece's text describes: what transformers itself runs."""
    names = {"torch": torch}
    exec(elementwise._HALF, names)
    exec(text, names)
    return names[text.split("(")[0].split()[-1]]


def build(family: str, dtype: torch.dtype) -> nn.Module:
    name, fields = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**fields)
    model = transformers.AutoModel.from_config(config).to(dtype).eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim == 1:
            p.add_(torch.randn_like(p) * 0.2)
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "mixtral", "phi3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lightened_model_gives_the_same_bits(family, dtype, monkeypatch):
    model, lighter = build(family, dtype), build(family, dtype)
    source = sys.modules[type(model).__module__]
    assert elementwise.lighten(lighter) > 0
    rotary = "apply_rotary_pos_emb"
    assert (getattr(source, rotary) is elementwise._rotary) == (family != "phi3")
    ids = torch.randint(0, 200, (3, 70))
    with torch.inference_mode():
        found = lighter(ids, output_hidden_states=True)
        if family != "phi3":
            monkeypatch.setattr(source, rotary, original(elementwise._ROTARY))
        expected = model(ids, output_hidden_states=True)
    for a, b in zip(expected.hidden_states, found.hidden_states, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_piece_gives_the_same_bits_and_leaves_its_input(dtype):
    torch.manual_seed(0)
    h = torch.randn(2, 5, 64).to(dtype) * 30
    module = nn.Module()
    module.weight, module.variance_epsilon = torch.randn(64).to(dtype), 1e-6
    module.gate_proj, module.up_proj = (
        nn.Linear(64, 96, dtype=dtype),
        nn.Linear(64, 96, dtype=dtype),
    )
    module.down_proj, module.act_fn = nn.Linear(96, 64, dtype=dtype), nn.SiLU()
    q, k = torch.randn(2, 4, 5, 16).to(dtype), torch.randn(2, 2, 5, 16).to(dtype)
    cos, sin = torch.randn(2, 2, 5, 16).to(dtype)
    inputs = [h, q, k, cos, sin]
    before = [t.clone() for t in inputs]
    with torch.inference_mode():
        for text, new in (
            (elementwise._NORM, elementwise._norm),
            (elementwise._MLP, elementwise._mlp),
        ):
            assert torch.equal(MethodType(new, module)(h), MethodType(original(text), module)(h))
        pairs = zip(
            elementwise._rotary(q, k, cos, sin),
            original(elementwise._ROTARY)(q, k, cos, sin),
            strict=True,
        )
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_a_norm_with_wider_weights_gives_their_type():
    module = nn.Module()
    module.weight, module.variance_epsilon = torch.rand(8), 1e-6
    h = torch.randn(3, 8, dtype=torch.bfloat16)
    found = elementwise._norm(module, h)
    expected = original(elementwise._NORM)(module, h)
    assert found.dtype == expected.dtype == torch.float32 and torch.equal(found, expected)


def test_the_texts_are_those_of_transformers():
    from transformers.models.llama import modeling_llama as llama

    assert elementwise._text(llama.LlamaRMSNorm.forward) == elementwise._NORM.strip()
    assert elementwise._text(llama.LlamaMLP.forward) == elementwise._MLP.strip()
    assert elementwise._text(llama.rotate_half) == elementwise._HALF.strip()


def test_other_code_stays_as_it_is():
    model = build("gpt2", torch.float32)
    assert elementwise.lighten(model) == 0

    class OwnNorm(nn.Module):  # reads like a known one, but is not of transformers
        def forward(self, x):
            down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
            return down_proj

    assert elementwise.lighten(nn.Sequential(OwnNorm())) == 0

    class Decorated:
        @torch.no_grad()
        def forward(self, x):
            return x

    assert elementwise._text(Decorated.forward) is None
    assert elementwise._text(torch.relu) is None  # not written in Python

    llama = build("llama", torch.float32)
    wrapped = llama.layers[0].mlp
    wrapped.forward = forward = lambda x: x  # as accelerate does to move weights
    elementwise.lighten(llama)
    assert wrapped.forward is forward
