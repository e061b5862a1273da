"""What the `config.json` of a model says about its sites.

`resid_pre.L` and `resid_post.L` are the input and the output of layer L in every family (before
the final norm also for the last layer; in post-norm encoders after the layer's own norm). Of an
encoder-decoder the encoder is read, of a multimodal model the part that reads text. The other sites
need to know the layer's inside; families that are not in `architectures` refuse them.

A config that does not say something, or says it in an unusual form, gives None.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from actprobe.models import special_cases
from actprobe.models.architectures import FAMILIES, Family

_ENCODER_LAYERS = ("encoder_layers", "num_encoder_layers")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers", *_ENCODER_LAYERS)
_ONE_PER_LAYER = ("layer_types", "layers_block_type", "hybrid_override_pattern")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embed_dim")
_TEXT = ("text_config", "thinker_config", "text_encoder", "generator", "decoder")
_CAUSAL_WRAPPERS = ("gemma3",)
_UNREADABLE = special_cases.UNREADABLE
_ORIGINAL = "original_max_position_embeddings"
_STREAMS = ("hc_mult", "hc_count", "altup_num_inputs")  # side by side in one layer's output


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a `config.json` that describes what reads text."""
    names = ("encoder", *_TEXT) if config.get("is_encoder_decoder") else _TEXT
    part = next((config[n] for n in names if isinstance(config.get(n), Mapping)), None)
    return text_config(part) if part else config


def number(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that holds a positive whole number; the largest one of a list."""
    for name in names:
        value = config.get(name)
        each = value if isinstance(value, list) else [value]
        found = [v for v in each if isinstance(v, int) and not isinstance(v, bool) and v > 0]
        if found:
            return max(found)
    return None


def n_layers(config: Mapping[str, Any]) -> int | None:
    """Number of layers in a `config.json`, under any of its usual names."""
    text = text_config(config)
    first = _ENCODER_LAYERS if text.get("is_encoder_decoder") else ()
    lists = (text[k] for k in _ONE_PER_LAYER if isinstance(text.get(k), list | str))
    return number(text, *first, *_LAYERS) or next((len(v) for v in lists if v), None)


def d_model(config: Mapping[str, Any]) -> int | None:
    """Width of the residual stream in a `config.json`, under any of its usual names."""
    return number(text_config(config), *_WIDTH)


def family(config: Mapping[str, Any]) -> Family | None:
    """The family of a `config.json`, or None when it is not mapped."""
    return FAMILIES.get(model_type(config))


def model_type(config: Mapping[str, Any]) -> str:
    """The family's name; multimodal wrappers give their text part's."""
    name = str(text_config(config).get("model_type") or config.get("model_type") or "unknown")
    return "gemma3_text" if name == "gemma3" else name


def needs_mask(config: Mapping[str, Any]) -> bool:
    """Whether right-padded batches need an attention mask: all but known causal decoders.

    A multimodal model may let its text part attend in both directions.
    """
    known, text = family(config), text_config(config)
    plain = text is config or config.get("model_type") in _CAUSAL_WRAPPERS
    causal = known is not None and known.causal and text.get("is_causal", True) and plain
    return not causal or bool(text.get("use_bidirectional_attention"))


def may_cut(config: Mapping[str, Any], layers: int) -> bool:
    """Whether the first layers of a model can be loaded without the others.

    Not in a family that is not mapped, nor in a part of a larger model. Where few modules stand for
    several layers each, their number says which.
    """
    n, mapped = n_layers(config), family(config) is not None
    whole = text_config(config) is config and not is_one_of(config, special_cases.SHARED_LAYERS)
    return n is not None and layers < n and mapped and whole


def may_share_prefix(config: Mapping[str, Any]) -> bool:
    """Whether the first tokens that all rows share may be computed once: in most known decoders."""
    return not needs_mask(config) and not is_one_of(config, special_cases.NO_PREFIX)


def is_one_of(config: Mapping[str, Any], names: Container[str]) -> bool:
    """Whether the model, or its part that reads text, is of one of these families."""
    return model_type(config) in names or config.get("model_type") in names


def unreadable(config: Mapping[str, Any]) -> str | None:
    """Why no site of a model can be read, or None when that is not known to be so."""
    text, name = text_config(config), model_type(config)
    streams = next((s for s in _STREAMS if (number(text, s) or 1) > 1), None)
    if streams:
        return (
            f"the model family {name!r} carries {text[streams]} residual streams side by side "
            f"({streams}: {text[streams]}): no vector of d_model numbers is the stream after a layer"
        )
    if text.get("attention_type") == "block_sparse":
        return (
            f"the model family {name!r} with attention_type: block_sparse attends to all tokens from "
            "the first short batch on: what a text gives would depend on the texts before it"
        )
    every = number(text, "rescale_every")
    if every and every < (n_layers(config) or every + 1):
        return f"the model family {name!r} halves its residual stream every {every} layers"
    known = next((n for n in (name, config.get("model_type")) if n in _UNREADABLE), None)
    return f"the model family {known!r} cannot be read: {_UNREADABLE[known]}" if known else None


def longest_alike(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(most tokens of a row, border) where rotary positions depend on the longest row of a batch.

    With "longrope" the rows up to the border and those beyond it have positions of two kinds. With
    "dynamic" each length beyond a limit has its own, which stay for the batches after it.
    """
    text = text_config(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    each = [rope, *(v for v in rope.values() if isinstance(v, Mapping))]
    kinds = {str(r.get("rope_type", r.get("type"))) for r in each}
    border = next((b for r in (*each, text) if (b := number(r, _ORIGINAL))), None)
    most = number(text, "max_position_embeddings")
    if any("dynamic" in k for k in kinds):
        return most, None
    return None, (border or most) if "longrope" in kinds else None


def refusal(config: Mapping[str, Any], kind: str) -> str | None:
    """Why a model has no site of this kind, or None when it has."""
    if reason := unreadable(config):
        return reason
    if kind in ("resid_pre", "resid_post"):
        return None
    name, text = model_type(config), text_config(config)
    if name not in FAMILIES:
        return (
            f"{kind} is not mapped for the model family {name!r} (mapped: {', '.join(FAMILIES)}); "
            "resid_pre and resid_post are there"
        )
    parallel = text.get("use_parallel_residual", name == "gpt_neox")
    if kind == "resid_mid" and (FAMILIES[name].resid_mid is None or parallel):
        return "attention and MLP run in parallel in this model: there is no resid_mid"
    if kind == "mlp_post" and FAMILIES[name].mlp_post is None:
        return "each expert of this model has neurons of its own: there is no mlp_post"
    if name == "opt" and kind != "embed" and not text.get("do_layer_norm_before", True):
        return f"{kind} is not mapped for OPT models that normalise after each sub-layer"
    return None
