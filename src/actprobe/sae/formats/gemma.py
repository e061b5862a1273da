"""Gemma Scope (`params.npz`, all else stands in the path) and Gemma Scope 2 (`params.safetensors`)."""

from __future__ import annotations

import math
import re
from pathlib import Path

from actprobe.sae.formats.layouts import matrix_shape
from actprobe.sae.formats.settings import read_json
from actprobe.sae.formats.spec import Sae
from actprobe.sae.tensors import tensors

_HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z",
          "transcoders": "ln2.hook_normalized"}  # fmt: skip
# Words in the folders of Gemma Scope 2.
_SITES = {"transcoder": "hook_mlp_in", "resid_post": "hook_resid_post",
          "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z"}  # fmt: skip


def read(folder: Path, weights: Path) -> Sae:
    """Gemma Scope: layer, width and model stand in the path alone.

    Embedding SAEs (`embedding/width_…`) were trained on inputs divided by sqrt(d).
    """
    d_in, d_sae = matrix_shape(tensors(weights), "W_enc", weights)
    layer = _layer(folder)
    embedding = layer == "embedding"
    kind = re.search(r"gemma-scope-([0-9]+b-[pi]t)-(res|mlp|att|transcoders)", str(folder))
    hook = f"blocks.{layer}.{_HOOKS[kind[2]]}" if layer and kind else None
    return Sae(
        str(weights), "jumprelu", d_in, d_sae,
        input_scale=1 / math.sqrt(d_in) if embedding else 1.0,
        transcoder=kind is not None and kind[2] == "transcoders",
        model=f"gemma-2-{kind[1].removesuffix('-pt')}" if kind else None,
        hook="hook_embed" if embedding else hook,
        layer=int(layer) if layer and not embedding and not hook else None,
        prepend_bos=True,
    )  # fmt: skip


def read_2(folder: Path, weights: Path) -> Sae:
    """Gemma Scope 2: the config names hooks, the path the layer and the site."""
    cfg = read_json(folder / "config.json")
    if cfg.word("architecture") != "jump_relu":
        raise (cfg.unsupported("architecture", "; known is jump_relu") if "architecture" in cfg
               else cfg.refusal("architecture", "jump_relu"))  # fmt: skip
    d_in, d_sae = matrix_shape(tensors(weights), "W_enc", weights)
    layer, parts = _layer(folder), " ".join(folder.parts[-3:])
    kind = next((word for word in _SITES if word in parts), None)
    named = f"blocks.{layer}.{_SITES[kind]}" if layer and kind else None
    inner = cfg.word("hf_hook_point_in")  # says more than the folder: before or after the norm
    model = (cfg.word("model_name") or "").replace("-v3", "-3")  # the hub says gemma-3
    out = cfg.word("hf_hook_point_out")
    return Sae(
        str(weights), "jumprelu", d_in, d_sae,
        transcoder=kind == "transcoder" or (out is not None and out != inner),
        model=(model.removesuffix("-pt") if "270m" in model else model) or None,
        hook=inner or named,
        layer=int(layer) if layer and layer != "embedding" else None,
        prepend_bos=True,
    )  # fmt: skip


def _layer(folder: Path) -> str | None:
    """The layer, or "embedding", in a Gemma Scope path; folders further up may speak of others."""
    found = [m for part in folder.parts[-3:] if (m := re.match(r"layer_(\d+)|embedding$", part))]
    return found[-1][1] or found[-1][0] if found else None
