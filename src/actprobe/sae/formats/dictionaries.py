"""dictionary_learning: `config.json` of a training run, and `ae.pt`."""

from __future__ import annotations

import re
from pathlib import Path

from actprobe.sae.formats.settings import Settings, read_json
from actprobe.sae.formats.spec import Sae

# dict_class -> architecture, and whether b_dec is subtracted from the input.
_CLASSES = {
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", False),
    "GatedAutoEncoder": ("gated", True),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
}


def read(folder: Path, weights: Path) -> Sae:
    """An SAE of dictionary_learning."""
    cfg = read_json(folder / "config.json")
    trainer, buffer = cfg.part("trainer"), cfg.part("buffer")
    named = trainer.word("dict_class")
    if named not in _CLASSES:
        if named is None:
            raise trainer.refusal("dict_class", f"one of {', '.join(_CLASSES)}")
        why = ": its latents are sums over several layers or models, so that none can be encoded alone"
        raise trainer.unsupported(
            "dict_class", why if "Cross" in named else f"; known are {', '.join(_CLASSES)}"
        )
    architecture, subtract = _CLASSES[named]
    layer = trainer.whole("layer", None, least=0)
    return Sae(
        str(weights), architecture,
        trainer.whole("activation_dim"), trainer.whole("dict_size"),
        k=trainer.whole("k") if architecture == "topk" else None,
        subtract_b_dec=subtract,
        model=trainer.word("lm_name"),
        hook=None if layer is None else _hook(trainer, buffer, layer),
        context_size=buffer.whole("ctx_len", None),
    )  # fmt: skip


def _hook(trainer: Settings, buffer: Settings, layer: int) -> str:
    module = trainer.word("submodule_name") or "resid_post"
    if named := re.search(r"resid_pre|resid_mid|mlp_in|mlp_out|attn_out", module):
        return f"blocks.{layer}.hook_{named[0]}"
    name = f"layers.{layer}" if "resid" in module else f"layers.{layer}.{module}"
    return f"{name}.input" if buffer.word("io") == "in" else name
