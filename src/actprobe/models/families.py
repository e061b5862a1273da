"""Where each model family keeps its sites: the modules behind TransformerLens' hook names.

`resid_pre.L` and `resid_post.L` are the input and the output of layer L in every family (before
the final norm also for the last layer; in post-norm encoders after the layer's own norm). The
other sites need to know the layer's inside; families that are not listed here refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "embed")


@dataclass(frozen=True)
class Family:
    """Module paths inside a layer.

    attn_out, mlp_out: the module whose output is added to the residual stream; resid_mid: the
    module whose input is the stream between the two. embed_apart: positions (or segments) are
    added between the token embedding and layer 0; otherwise `embed` is the input of layer 0,
    which includes Gemma's scaling. causal: right padding needs no attention mask.
    """

    attn_out: str
    mlp_out: str
    resid_mid: str
    embed_apart: bool = False
    causal: bool = True


_LLAMA = Family("self_attn", "mlp", "post_attention_layernorm")
_GEMMA2 = Family(
    "post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm"
)
_BERT = Family(
    "attention.output.dense", "output.dense", "attention.output.LayerNorm", True, causal=False
)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt2": Family("attn", "mlp", "ln_2", embed_apart=True),
    "gpt_neox": Family("attention", "mlp", "post_attention_layernorm"),
    "opt": Family("self_attn", "fc2", "final_layer_norm", embed_apart=True),
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
    if name == "opt" and kind != "embed" and not text.get("do_layer_norm_before", True):
        return f"{kind} is not mapped for OPT models that normalise after each sub-layer"
    return None
