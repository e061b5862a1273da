"""Headers of GGUF files in the words of transformers' configs: one function per architecture.

Each asks for all that a header may say of it; `Stated.refuse_the_rest` refuses what nobody asked for.
"""

from __future__ import annotations

from typing import Any

from actprobe.base.errors import BadInput
from actprobe.models.gguf.stated import Stated

Config = dict[str, Any]

_NOT_GIVEN = "a head's keys and values are as wide as its part of the stream"


def layers(s: Stated) -> int:
    """Layers of the model; their number is compared with the table of tensors.

    Layers that predict tokens further on stand behind them, where a file has any.
    """
    stated = s.number("block_count")
    parts = (name.split(".") for name in s.header.tensors)
    found = {int(p[1]) for p in parts if p[0] == "blk" and p[1].isdecimal()}
    if found != set(range(stated)):
        missing = next((n for n in range(stated) if n not in found), None)
        raise BadInput(
            f"{s.what}: its header states {stated:,} layers, and "
            + (
                f"layer {missing} has no tensors"
                if missing is not None
                else f"there are {len(found)}"
            )
        )
    return stated - int(s("nextn_predict_layers", 0))


def _attention(s: Stated) -> Config:
    """Heads; `head_dim` is the width of one."""
    heads = s.number("attention.head_count")
    width = s.number("attention.key_length", s.number("embedding_length") // heads)
    s.expect("attention.value_length", width, _NOT_GIVEN)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": s.number("attention.head_count_kv", heads),
        "head_dim": width,
    }


def _decoder(s: Stated) -> Config:
    return {
        **_attention(s),
        "intermediate_size": s.number("feed_forward_length"),
        "max_position_embeddings": s.number("context_length"),
    }


def _whole_heads(s: Stated, config: Config) -> Config:
    """A decoder whose rotary positions turn a head's whole width."""
    s.expect("rope.dimension_count", config["head_dim"], "its heads are turned whole")
    return {**config, "rope_parameters": _rope(s)}


def _partial(s: Stated, config: Config, key: str = "partial_rotary_factor") -> Config:
    """A decoder whose rotary positions turn a part of each head."""
    turned = s.number("rope.dimension_count", config["head_dim"])
    share = turned / config["head_dim"]
    return {**config, key: share, "rope_parameters": {**_rope(s), key: share}}


def _rope(s: Stated) -> Config:
    """Rotary positions: base and scaling. Factors that are tensors come later (`rotary.complete`)."""
    base = {"rope_theta": float(s("rope.freq_base", 10000.0))}
    s.expect("rope.scale_linear", 1.0, "an old way to scale positions")
    kind = s("rope.scaling.type", "none")
    if kind in ("none", "longrope"):
        s.expect("rope.scaling.factor", 1.0, f"with the scaling {kind!r}")
        return {"rope_type": "default", **base}
    if kind not in ("linear", "yarn"):
        raise BadInput(
            f"{s.what}: rope.scaling.type is {kind!r}; expected none, linear, yarn or longrope"
        )
    factor = float(s("rope.scaling.factor"))
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor, **base}
    s.expect("rope.scaling.yarn_ext_factor", 1.0, "transformers has no such factor")
    given = {
        "beta_fast": s("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": s("rope.scaling.yarn_beta_slow", 1.0),
    }
    if (attention := s("rope.scaling.yarn_attn_factor", 1.0)) != 1.0:
        given["attention_factor"] = attention
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": s.number("rope.scaling.original_context_length"),
        **given,
        **base,
    }


def _rms(s: Stated, key: str = "rms_norm_eps") -> Config:
    return {key: float(s("attention.layer_norm_rms_epsilon"))}


def _layer_norm(s: Stated, key: str) -> Config:
    return {key: float(s("attention.layer_norm_epsilon"))}


def llama(s: Stated) -> Config:
    s.expect("expert_count", 0, "experts (Mixtral) are not read from GGUF")
    s.expect("expert_used_count", 0, "experts (Mixtral) are not read from GGUF")
    return {
        **_whole_heads(s, _decoder(s)),
        **_rms(s),
        "attention_bias": s.has("blk.0.attn_q.bias"),
        "mlp_bias": s.has("blk.0.ffn_up.bias"),
    }


def qwen2(s: Stated) -> Config:
    config = _decoder(s)
    if config.pop("head_dim") * config["num_attention_heads"] != s.number("embedding_length"):
        raise BadInput(
            f"{s.what}: {s.name}.attention.key_length: its heads share the stream evenly"
        )
    s.expect(
        "rope.dimension_count",
        s.number("embedding_length") // config["num_attention_heads"],
        "whole",
    )
    return {**config, "rope_parameters": _rope(s), **_rms(s), "use_sliding_window": False}


def qwen3(s: Stated) -> Config:
    return {**_whole_heads(s, _decoder(s)), **_rms(s), "attention_bias": False,
            "use_sliding_window": False}  # fmt: skip


def _experts(s: Stated) -> Config:
    return {
        "num_experts": s.number("expert_count"),
        "num_experts_per_tok": s.number("expert_used_count"),
        "moe_intermediate_size": s.number("expert_feed_forward_length"),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def qwen2moe(s: Stated) -> Config:
    shared = s.number("expert_shared_feed_forward_length")
    return {**qwen2(s), **_experts(s), "shared_expert_intermediate_size": shared,
            "norm_topk_prob": False}  # fmt: skip


def qwen3moe(s: Stated) -> Config:
    s.expect("expert_weights_scale", 1.0, "transformers has no such scale")
    return {**qwen3(s), **_experts(s), "norm_topk_prob": True}


def _attention_scale(s: Stated, config: Config, layers_of_27b: int) -> int:
    """What queries are scaled by, as llama.cpp knows it: files do not say."""
    if s.number("block_count") == layers_of_27b:
        return s.number("embedding_length") // int(config["num_attention_heads"])
    return int(config["head_dim"])


def gemma2(s: Stated) -> Config:
    config = {**_whole_heads(s, _decoder(s)), **_rms(s)}
    return {
        **config,
        "query_pre_attn_scalar": _attention_scale(s, config, 46),
        "sliding_window": s.number("attention.sliding_window", 4096),
        "attn_logit_softcapping": s("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": s("final_logit_softcapping", 30.0),
        "layer_types": _alternating(s.number("block_count"), 2),
    }


def gemma3(s: Stated) -> Config:
    config = {**_whole_heads(s, _decoder(s)), **_rms(s)}
    pattern = s.number("attention.sliding_window_pattern", 6)
    local = {"rope_type": "default", "rope_theta": float(s("rope.freq_base_swa", 10000.0))}
    return {
        **config,
        "query_pre_attn_scalar": _attention_scale(s, config, 62),
        "sliding_window": s.number("attention.sliding_window"),
        "final_logit_softcapping": s("final_logit_softcapping", 0.0) or None,
        "layer_types": _alternating(s.number("block_count"), pattern),
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": local,
        },
    }


def _alternating(layers: int, pattern: int) -> list[str]:
    """Every `pattern`-th layer sees everything, the others a window."""
    return ["sliding_attention" if (n + 1) % pattern else "full_attention" for n in range(layers)]


def phi3(s: Stated) -> Config:
    config = _partial(s, _decoder(s))
    original = s.number("rope.scaling.original_context_length", config["max_position_embeddings"])
    s("rope.scaling.attn_factor", 1.0)  # transformers works it out of the two lengths
    return {
        **config,
        **_rms(s),
        "original_max_position_embeddings": original,
        "sliding_window": s("attention.sliding_window", 0) or None,
    }


def stablelm(s: Stated) -> Config:
    return {
        **_partial(s, _decoder(s)),
        **_layer_norm(s, "layer_norm_eps"),
        "use_parallel_residual": bool(s("use_parallel_residual", True)),
        "use_qkv_bias": s.has("blk.0.attn_q.bias"),
        "qk_layernorm": s.has("blk.0.attn_q_norm.weight"),
    }


def gpt2(s: Stated) -> Config:
    return {
        "n_layer": s.number("block_count"),
        "n_head": s.number("attention.head_count"),
        "n_embd": s.number("embedding_length"),
        "n_inner": s.number("feed_forward_length"),
        "n_positions": s.number("context_length"),
        **_layer_norm(s, "layer_norm_epsilon"),
    }


def starcoder2(s: Stated) -> Config:
    return {**_whole_heads(s, _decoder(s)), **_layer_norm(s, "norm_epsilon"), "use_bias": True,
            "sliding_window": None}  # fmt: skip


def falcon(s: Stated) -> Config:
    s.expect("attention.head_count_kv", 1, "of Falcon the 7B alone is read from GGUF")
    if s.has("blk.0.attn_norm_2.weight"):
        raise BadInput(f"{s.what}: of Falcon the 7B alone is read from GGUF")
    return {
        "num_attention_heads": s.number("attention.head_count"),
        "ffn_hidden_size": s.number("feed_forward_length"),
        "max_position_embeddings": s.number("context_length"),
        "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False,
        "bias": False, "alibi": False,
        "rope_parameters": _rope(s),
        **_layer_norm(s, "layer_norm_epsilon"),
    }  # fmt: skip


def bloom(s: Stated) -> Config:
    heads = s.number("attention.head_count")
    s.expect("attention.head_count_kv", heads, "each head has keys of its own")
    s.expect("feed_forward_length", 4 * s.number("embedding_length"), "four times the stream")
    return {
        "n_layer": s.number("block_count"),
        "n_head": heads,
        "seq_length": s.number("context_length"),
        **_layer_norm(s, "layer_norm_epsilon"),
    }


def nemotron(s: Stated) -> Config:
    s("attention.layer_norm_rms_epsilon", 0.0)  # the same number under another name
    return {**_partial(s, _decoder(s)), **_layer_norm(s, "norm_eps")}


def mamba(s: Stated) -> Config:
    width, inner = s.number("embedding_length"), s.number("ssm.inner_size")
    s.expect("ssm.dt_b_c_rms", False, "Falcon Mamba is not read from GGUF")
    for key in ("context_length", "feed_forward_length", "attention.head_count"):
        s(key, 0)
    return {
        "conv_kernel": s.number("ssm.conv_kernel"),
        "state_size": s.number("ssm.state_size"),
        "time_step_rank": s.number("ssm.time_step_rank"),
        "intermediate_size": inner,
        "expand": inner // width,
        "layer_norm_epsilon": float(s("attention.layer_norm_rms_epsilon")),
    }


def lfm2(s: Stated) -> Config:
    kv = s("attention.head_count_kv")
    kv = kv if isinstance(kv, list) else [kv] * s.number("block_count")
    return {
        "num_attention_heads": s.number("attention.head_count"),
        "num_key_value_heads": max(kv),
        "layer_types": ["full_attention" if n else "conv" for n in kv],
        "intermediate_size": s.number("feed_forward_length"),
        "block_auto_adjust_ff_dim": False,
        "max_position_embeddings": s.number("context_length"),
        "norm_eps": float(s("attention.layer_norm_rms_epsilon")),
        "conv_L_cache": s.number("shortconv.l_cache"),
        "conv_bias": s.has("blk.0.shortconv.in_proj.bias"),
        "rope_parameters": _rope(s),
    }


def qwen35(s: Stated) -> Config:
    config, values = _decoder(s), s.number("ssm.time_step_rank")
    share = s.number("rope.dimension_count") / config["head_dim"]
    sections = s("rope.dimension_sections", [])
    interval = s.number("full_attention_interval", 4)
    n_layers = layers(s)
    kinds = [
        "linear_attention" if (n + 1) % interval else "full_attention" for n in range(n_layers)
    ]
    recurrent = s("attention.recurrent_layers", [k == "linear_attention" for k in kinds])
    if recurrent[:n_layers] != [k == "linear_attention" for k in kinds]:
        raise BadInput(
            f"{s.what}: qwen35.attention.recurrent_layers: every {interval}th is expected to be none"
        )
    return {
        **config,
        **_rms(s),
        "layer_types": kinds,
        "full_attention_interval": interval,
        "linear_conv_kernel_dim": s.number("ssm.conv_kernel"),
        "linear_key_head_dim": s.number("ssm.state_size"),
        "linear_num_key_heads": s.number("ssm.group_count"),
        "linear_num_value_heads": values,
        "linear_value_head_dim": s.number("ssm.inner_size") // values,
        "rope_parameters": {
            **_rope(s),
            "partial_rotary_factor": share,
            "mrope_section": [n for n in sections if n],
            "mrope_interleaved": True,
        },
    }


def minimax(s: Stated) -> Config:
    config = _decoder(s)
    turned = s.number("rope.dimension_count")
    s.expect("expert_feed_forward_length", config["intermediate_size"], "its MLPs are its experts")
    return {
        **config,
        **_rms(s),
        "rotary_dim": turned,
        "rope_parameters": {**_rope(s), "partial_rotary_factor": turned / config["head_dim"]},
        "num_local_experts": s.number("expert_count"),
        "num_experts_per_tok": s.number("expert_used_count"),
        "scoring_func": {1: "softmax", 2: "sigmoid"}.get(s("expert_gating_func", 2), "unknown"),
        "use_routing_bias": s.has("blk.0.exp_probs_b.bias"),
    }
