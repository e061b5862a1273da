"""What PEFT writes against what it merges, for every setting; where peft is installed.

pip install peft scipy safetensors && pytest --noconftest tests/unit/test_lora_peft.py
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from actprobe.base.errors import BadInput
from actprobe.lora.collection import Member
from actprobe.lora.names import canonical
from actprobe.lora.read import read_lora
from actprobe.lora.records import Rules

peft = pytest.importorskip("peft", reason="peft is not installed")


class Block(nn.Module):
    """Layers of every kind that PEFT puts a LoRA on and that can be merged."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(16, 16), nn.Linear(16, 12)
        self.conv, self.line = nn.Conv2d(4, 6, 3), nn.Conv1d(4, 5, 3)
        self.embed, self.score = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q_proj(self.embed(x)))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Block(), Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


LINEAR = ["q_proj", "v_proj"]
READ: dict[str, dict[str, Any]] = {
    "plain": {},
    "alpha": {"lora_alpha": 16},
    "rslora": {"use_rslora": True, "lora_alpha": 16},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, r"^layers\.1\.v_proj": 3}},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 3, r"layers\.1\.v_proj": 5, "o_proj": 9}},
    "both": {"use_rslora": True, "rank_pattern": {r".*[01]\.q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    **{f"init {v}": {"init_lora_weights": v} for v in ("gaussian", False, "orthogonal", "mica", "eva")},
    "dropout": {"lora_dropout": 0.1},
    "layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "exclude": {"exclude_modules": ["layers.0.q_proj"]},
    "bias all": {"bias": "all"},
    "bias of loras": {"bias": "lora_only"},
    "lora_bias": {"lora_bias": True},
    "modules_to_save": {"modules_to_save": ["score"]},
    "embedding": {"target_modules": ["q_proj", "embed"]},
    "convolutions": {"target_modules": ["conv", "line"]},
}  # fmt: skip
REFUSED: dict[str, dict[str, Any]] = {
    **{
        f"init {v}": {"init_lora_weights": v}
        for v in ("pissa", "pissa_niter_4", "olora", "lora_ga")
    },
    "dora": {"use_dora": True},
    "qalora": {"use_qalora": True, "qalora_group_size": 4},
}


def _written(folder: Path, options: dict[str, Any]) -> tuple[Member, dict[str, np.ndarray]]:
    """An adapter with random factors, saved by PEFT; merged minus base by canonical name."""
    warnings.simplefilter("ignore")
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, **options})
    model = peft.get_peft_model(Tiny(), config)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                p.add_(0.1 * torch.randn(p.shape, generator=random))
    model.save_pretrained(folder)
    base = {n: p.detach().clone() for n, p in Tiny().named_parameters()}
    merged = peft.PeftModel.from_pretrained(Tiny(), folder).merge_and_unload()
    change = {
        canonical(f"base_model.model.{n.removesuffix('.weight')}")[0]: (
            p.detach() - base[n]
        ).numpy()
        for n, p in merged.named_parameters()
        if n.endswith(".weight")
    }
    path = str(folder / "adapter_model.safetensors")
    return Member("x", path, str(folder / "adapter_config.json")), change


@pytest.mark.parametrize("name", READ)
def test_w_is_what_peft_adds_to_the_base_model(tmp_path: Path, name: str) -> None:
    member, change = _written(tmp_path, READ[name])
    factors = read_lora(member, Rules()).factors
    assert factors
    for module, f in factors.items():
        w = f.scale * f.up @ f.down
        expected = change[module].reshape(w.shape)
        np.testing.assert_allclose(w, expected, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", REFUSED)
def test_where_w_is_something_else_the_setting_is_named(tmp_path: Path, name: str) -> None:
    member, change = _written(tmp_path, REFUSED[name])
    (setting,) = (k for k in REFUSED[name] if k != "qalora_group_size")
    with pytest.raises(BadInput, match=setting):
        read_lora(member, Rules())
    if name not in ("init lora_ga", "qalora"):  # these need data or GPTQ to differ
        alone = Member(member.id, member.path)
        factors = {} if name == "dora" else read_lora(alone, Rules(alpha="one")).factors
        for module, f in factors.items():
            w = 2 * f.up @ f.down
            assert not np.allclose(w, change[module].reshape(w.shape), atol=1e-3)


def test_every_field_of_the_installed_peft_is_known(tmp_path: Path) -> None:
    import dataclasses

    from actprobe.lora import settings

    known = (
        settings._APPLIED
        | settings._HARMLESS
        | settings._REFUSED.keys()
        | settings._DOUBTFUL.keys()
    )
    fields = {f.name for f in dataclasses.fields(peft.LoraConfig)}
    assert fields <= known, "what is not known is refused when it is switched on"
