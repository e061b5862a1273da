"""Tiny random models of any architecture that transformers knows, with a tokenizer of bytes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from fixes import FIXES
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LAYERS, WIDTH, HEADS, VOCABULARY, POSITIONS = 4, 32, 4, 300, 64

# Fields of a config, under all of their usual names, and their tiny values.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "layers",
         "num_encoder_layers"),
        LAYERS,
    ),
    # of another depth than the encoder, so that the two are told apart by what is in them alone
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "embed_dim", "emb_dim",
         "word_embed_proj_dim", "hidden_dim_model", "encoder_hidden_size", "embedding_dim",
         "output_hidden_size", "out_hidden_size", "output_dim", "projection_dim", "pooler_hidden_size"),
        WIDTH,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "attention_heads", "swa_num_attention_heads", "nhead"),
        HEADS,
    ),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "dim_head", "d_head", "kv_channels", "swa_head_dim",
                     "attention_head_dim"), 8),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "dff", "d_inner",
         "hidden_dim", "dim_ff", "n_inner", "ffn_hidden_size", "intermediate_size_mlp", "block_ff_dim",
         "dense_intermediate_size", "block_dim"),
        48,
    ),
    **dict.fromkeys(
        ("vocab_size", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size", "text_vocab_size",
         "vocab_size_per_layer_input", "unpadded_vocab_size", "entity_vocab_size"),
        VOCABULARY,
    ),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_encoder_position_embeddings",
         "max_decoder_position_embeddings", "max_source_positions", "model_max_length", "n_ctx",
         "max_seq_len", "max_target_positions"),
        POSITIONS,
    ),
    # experts
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size",
         "shared_experts_intermediate_size", "shared_intermediate_size"),
        16,
    ),
    **dict.fromkeys(("n_group", "num_expert_group"), 2),
    "topk_group": 1, "first_k_dense_replace": 1, "num_dense_layers": 1, "zero_expert_num": 2,
    # latent attention and indexed attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "qk_head_dim": 8, "v_head_dim": 12, "index_topk": 8, "index_head_dim": 8, "index_n_heads": 16,
    # state spaces and linear attention
    "state_size": 8, "mamba_d_state": 8, "ssm_state_size": 8, "time_step_rank": 4, "mamba_dt_rank": 4,
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_num_heads": 8, "mamba_head_dim": 8,
    "mamba_headdim": 8, "n_mamba_heads": 2,
    "mamba_n_groups": 1, "n_groups": 1, "mamba_ngroups": 1, "chunk_size": 8, "mamba_chunk_size": 8,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_head_dim": 8, "linear_num_heads": 4,
    # windows and relative positions, shorter than the longest row
    "sliding_window": 8, "sliding_window_size": 8, "window_size": 8, "local_attention": 8,
    "attention_window": 8, "attention_chunk_size": 8, "local_radius": 3, "global_block_size": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
    "rotary_dim": 4, "block_size": 4, "rescale_every": 2, "block_multiple_of": 8,
    "layers_block_type_period": 2, "rotary_ndims": 4, "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8, "laurel_rank": 4,
    # what sees and hears beside the text
    "image_size": 16, "patch_size": 8, "depth": 2, "num_mel_bins": 8, "vision_embed_dim": WIDTH,
    "spatial_merge_size": 2, "temporal_patch_size": 1,
}  # fmt: skip

_PER_LAYER = {"head_dim": 16, "num_key_value_heads": 1, "sliding_window": 4}
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


class NotBuildable(Exception):
    """The architecture could not be built tiny."""


def model_types() -> list[str]:
    """Every model type that AutoModel or AutoModelForCausalLM can build."""
    names = {*modeling_auto.MODEL_MAPPING_NAMES, *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    return sorted(names)


def model_class(config: PreTrainedConfig) -> type:
    """The class that reads this config: the base model where there is one."""
    for mapping in (modeling_auto.MODEL_MAPPING, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple | list) else found
    raise NotBuildable(f"no class for {type(config).__name__}")


def configuration(model_type: str) -> PreTrainedConfig:
    """A config of this model type with four layers of width 32."""
    kind = CONFIG_MAPPING[model_type]
    return kind(**_shrunk(kind(**FIXES.get(model_type, {}).get("default", {})), model_type))


def _shrunk(config: PreTrainedConfig, model_type: str) -> dict[str, Any]:
    """Arguments that make the config tiny, sub-configs included."""
    fields = config.to_dict()
    depth = next((fields[k] for k in ("num_hidden_layers", "n_layer", "num_layers")
                  if isinstance(fields.get(k), int)), None)  # fmt: skip
    ids = itertools.count(VOCABULARY - 1, -1)
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict) and isinstance(getattr(config, key, None), PreTrainedConfig):
            part = getattr(config, key)
            found[key] = {**_shrunk(part, part.model_type), "model_type": part.model_type}
        elif key in SIZES and _is_number(value):
            found[key] = SIZES[key]
        elif key.endswith(("_token_id", "_token_index")) and _is_number(value):
            found[key] = _SPECIAL.get(key, next(ids))
        elif isinstance(value, list) and depth and len(value) == depth:
            found[key] = _some_of_each(value)
    if "kv_lora_rank" in found:  # every head has keys of its own; positions stand in a part of it
        found["num_key_value_heads"] = HEADS
        found["head_dim"] = found.get("qk_rope_head_dim", 8)
    if "head_dim" in fields and fields["head_dim"] is None:
        found["head_dim"] = 8
    if fields.get("per_layer_config"):
        last = next(iter(fields["per_layer_config"].values()))
        found["per_layer_config"] = {
            str(LAYERS - 1): {k: _PER_LAYER.get(k, v) for k, v in last.items()}
        }
    found = {k: v for k, v in found.items() if k in fields}
    fixed = dict(FIXES.get(model_type, {}))
    fixed.pop("default", None)
    found |= fixed
    return {k: v for k, v in found.items() if v != "leave"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _some_of_each(values: list[Any]) -> list[Any]:
    """Four of a list with one entry per layer: its first ones, and one of each other kind."""
    chosen = values[:LAYERS]
    others = [v for k, v in enumerate(values) if v not in values[:k] and v not in chosen]
    return [*chosen[: LAYERS - len(others)], *others][:LAYERS]


def build(config: PreTrainedConfig) -> Any:
    """A model whose every weight matters: a wrong mask, position, layer or norm shows."""
    torch.manual_seed(0)
    kind = model_class(config)
    try:
        model = kind._from_config(config)
    except AttributeError:
        model = kind(config)
    with torch.no_grad():
        for p in model.parameters():
            if not p.is_floating_point():
                continue
            if p.ndim < 2 or min(p.shape) == 1:
                p.add_(torch.randn_like(p) * 0.2)
            else:
                p.copy_(torch.randn_like(p) * 1.5 / math.sqrt(p.shape[-1]))
    return model.float().eval()


def save(model_type: str, folder: Path, config: PreTrainedConfig) -> None:
    """A random model with this config in many files with an index, and its tokenizer."""
    build(config).save_pretrained(folder, max_shard_size="40KB")
    save_tokenizer(folder, closed=is_encoder(config))


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether the tokenizer closes a text with `</s>`: for all but decoders."""
    return config.model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def save_tokenizer(folder: Path, closed: bool) -> None:
    """One token per byte; `<s>` in front."""
    specials = ["<s>", "</s>", "<pad>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(specials + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    single = "<s> $A </s>" if closed else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
