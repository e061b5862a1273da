"""What the `config.json` of a model says about its sites.

`resid_pre.L` and `resid_post.L` are the input and the output of layer L in every family (before
the final norm also for the last layer; in post-norm encoders after the layer's own norm). The
other sites need to know the layer's inside; families that are not in `architectures` refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.models.architectures import FAMILIES, Family

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
    parallel = text.get("use_parallel_residual", name == "gpt_neox")
    if kind == "resid_mid" and (FAMILIES[name].resid_mid is None or parallel):
        return "attention and MLP run in parallel in this model: there is no resid_mid"
    if kind == "mlp_post" and FAMILIES[name].mlp_post is None:
        return "each expert of this model has neurons of its own: there is no mlp_post"
    if name == "opt" and kind != "embed" and not text.get("do_layer_norm_before", True):
        return f"{kind} is not mapped for OPT models that normalise after each sub-layer"
    return None
