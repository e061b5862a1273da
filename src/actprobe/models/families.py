"""Where each model family keeps its sites: the modules behind TransformerLens' hook names.

`resid_pre.L` and `resid_post.L` are the input and the output of layer L in every family (before
the final norm also for the last layer; in post-norm encoders after the layer's own norm). The
other sites need to know the layer's inside; families that are not listed here refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# In the order of the forward pass, the embedding last.
SITES = (
    "resid_pre", "z", "attn_out", "resid_mid", "mlp_in", "mlp_post", "mlp_out", "resid_post", "embed",
)  # fmt: skip
INPUTS = ("resid_pre", "resid_mid", "z", "mlp_in", "mlp_post")  # read where a module takes them in


@dataclass(frozen=True)
class Family:
    """Module paths inside a layer.

    attn_out, mlp_out: the module whose output is added to the residual stream; resid_mid: the
    module whose input is the stream between the two; z: the heads' mixed values side by side,
    [n_heads * d_head], as the attention's output matrix takes them; mlp_in: what the MLP takes,
    after its norm; mlp_post: its neurons, [d_mlp], as its output matrix takes them (None: experts
    have their own). embed_apart: positions (or segments) are added between the token embedding and
    layer 0; otherwise `embed` is the input of layer 0, which includes Gemma's scaling. causal: right
    padding needs no attention mask.
    """

    attn_out: str
    mlp_out: str
    resid_mid: str
    z: str
    mlp_in: str
    mlp_post: str | None
    embed_apart: bool = False
    causal: bool = True


_LLAMA = Family(
    attn_out="self_attn",
    mlp_out="mlp",
    resid_mid="post_attention_layernorm",
    z="self_attn.o_proj",
    mlp_in="mlp",
    mlp_post="mlp.down_proj",
)
_GEMMA2 = replace(
    _LLAMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    resid_mid="pre_feedforward_layernorm",
)
_GPT2 = Family(
    attn_out="attn",
    mlp_out="mlp",
    resid_mid="ln_2",
    z="attn.c_proj",
    mlp_in="mlp",
    mlp_post="mlp.c_proj",
    embed_apart=True,
)
_NEOX = Family(
    attn_out="attention",
    mlp_out="mlp",
    resid_mid="post_attention_layernorm",
    z="attention.dense",
    mlp_in="mlp",
    mlp_post="mlp.dense_4h_to_h",
)
_OPT = Family(
    attn_out="self_attn",
    mlp_out="fc2",
    resid_mid="final_layer_norm",
    z="self_attn.out_proj",
    mlp_in="fc1",
    mlp_post="fc2",
    embed_apart=True,
)
_BERT = Family(
    attn_out="attention.output.dense",
    mlp_out="output.dense",
    resid_mid="attention.output.LayerNorm",
    z="attention.output.dense",
    mlp_in="intermediate",
    mlp_post="output.dense",
    embed_apart=True,
    causal=False,
)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": replace(_LLAMA, mlp_post=None),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "opt": _OPT,
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
}

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a `config.json` that describes the language model."""
    return config.get("text_config") or config


def n_layers(config: Mapping[str, Any]) -> int | None:
    """Number of layers in a `config.json`, under any of its usual names."""
    return next((c[k] for c in [text_config(config)] for k in _LAYERS if c.get(k)), None)


def d_model(config: Mapping[str, Any]) -> int | None:
    """Width of the residual stream in a `config.json`, under any of its usual names."""
    return next((c[k] for c in [text_config(config)] for k in _WIDTH if c.get(k)), None)


def family(config: Mapping[str, Any]) -> Family | None:
    """The family of a `config.json`, or None when it is not mapped."""
    return FAMILIES.get(model_type(config))


def model_type(config: Mapping[str, Any]) -> str:
    """The family's name; multimodal wrappers give their text part's."""
    name = str(text_config(config).get("model_type", config.get("model_type", "unknown")))
    return "gemma3_text" if name == "gemma3" else name


def needs_mask(config: Mapping[str, Any]) -> bool:
    """Whether right-padded batches need an attention mask: all but known causal decoders."""
    known, text = family(config), text_config(config)
    causal = known is not None and known.causal and text.get("is_causal", True)
    return not causal or bool(text.get("use_bidirectional_attention"))


def refusal(config: Mapping[str, Any], kind: str) -> str | None:
    """Why a model has no site of this kind, or None when it has."""
    if kind in ("resid_pre", "resid_post"):
        return None
    name, text = model_type(config), text_config(config)
    if name not in FAMILIES:
        return (
            f"{kind} is not mapped for the model family {name!r} (mapped: {', '.join(FAMILIES)}); "
            "resid_pre and resid_post work for every family"
        )
    if name == "gpt_neox" and kind == "resid_mid" and text.get("use_parallel_residual", True):
        return "attention and MLP run in parallel in this model: there is no resid_mid"
    if kind != "embed" and getattr(FAMILIES[name], kind) is None:
        return f"each expert of this model has neurons of its own: there is no {kind}"
    if name == "opt" and kind != "embed" and not text.get("do_layer_norm_before", True):
        return f"{kind} is not mapped for OPT models that normalise after each sub-layer"
    return None
