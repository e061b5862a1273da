"""Transcoders of circuit-tracer: `layer_N.safetensors`, and `W_enc_N.safetensors` of cross-layer ones.

The folder's config.yaml, where there is one, names the model and the hook; wandb-config.yaml repeats
the widths. The encoder of one layer is read; it does not depend on the other layers.
"""

from __future__ import annotations

import re
from pathlib import Path

from actprobe.base.errors import BadInput
from actprobe.sae.formats.layouts import has, matrix_shape
from actprobe.sae.formats.settings import Settings, read_yaml
from actprobe.sae.formats.spec import Sae
from actprobe.sae.tensors import tensors

BESIDE = ("config.yaml", "wandb-config.yaml", "wanb-config.yaml")  # the last as some spell it


def read(folder: Path, weights: Path) -> Sae:
    """A per-layer transcoder."""
    return _read(folder, weights, weights.stem.removeprefix("layer_"), "")


def read_cross_layer(folder: Path, weights: Path) -> Sae:
    """One layer of a cross-layer transcoder: names of tensors end in `_N`."""
    layer = weights.stem.removeprefix("W_enc_")
    return _read(folder, weights, layer, f"_{layer}")


def _read(folder: Path, weights: Path, layer: str, suffix: str) -> Sae:
    if not layer.isdigit():
        raise BadInput(f"{weights}: expected a layer's number at the end of its name")
    found = tensors(weights)
    d_in, d_sae = matrix_shape(found, "W_enc", weights, "encoder_rows", suffix)
    about = folder / "config.yaml"
    cfg = read_yaml(about) if about.is_file() else Settings(about, {})
    activation = cfg.word("activation")
    if activation not in (None, "relu", "topk", "jump_relu", "jumprelu"):
        raise cfg.unsupported("activation", "; known are relu, topk and jump_relu")
    jump = (activation is None and has(found, "threshold", suffix)) or activation in (
        "jump_relu",
        "jumprelu",
    )
    hook = cfg.word("feature_input_hook", "mlp.hook_in")
    return Sae(
        str(weights),
        "topk" if activation == "topk" else "jumprelu" if jump else "standard",
        d_in, d_sae,
        k=cfg.whole("k") if activation == "topk" else None,
        layout="encoder_rows",
        suffix=suffix,
        jump=jump,
        relu=False,
        transcoder=True,
        model=cfg.word("model_name") or _model(folder),
        hook=f"blocks.{layer}.{hook}",
        layer=int(layer),
    )  # fmt: skip


def _model(folder: Path) -> str | None:
    """The model that mwhanna's repositories without a config.yaml are called after."""
    named = re.search(r"qwen3-(\d+(?:\.\d+)?)b-transcoders", str(folder))
    return f"Qwen/Qwen3-{named[1]}B" if named else None
