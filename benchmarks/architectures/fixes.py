"""What the general rules of `tiny` get wrong: fields of single model types.

"default": arguments without which the config cannot be made at all; "leave" as a value: as it is.
"""

from __future__ import annotations

from typing import Any

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_THREE_AXES = {"rope_parameters": {**_ROPE, "mrope_section": [2, 1, 1]}}
_HALF_ROTATED = {**_ROPE, "partial_rotary_factor": 0.5}
_TWO_KINDS = ["linear_attention", "full_attention"] * 2
_SHARED = {
    "num_kv_shared_layers": 1,
    "layer_types": [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
        "sliding_attention",
    ],
}
_WIDE = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 16}},
}
_GEMMA4 = {**_WIDE, "num_kv_shared_layers": 1}

FIXES: dict[str, dict[str, Any]] = {
    # positions on three axes, where text uses one
    **dict.fromkeys(
        ("cosmos3_edge_text", "glm4v_text", "glm_image_text", "glm_ocr_text", "paddleocr_vl_text",
         "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "glm46v_text", "hunyuan_vl_text"),
        _THREE_AXES,
    ),
    "glm4v_moe_text": {"rope_parameters": {**_HALF_ROTATED, "mrope_section": [1, 1, 0]}},
    # layers of two kinds
    "bamba": {"attn_layer_indices": [1, 3]},
    "granitemoehybrid": {"layer_types": _TWO_KINDS},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "falcon_h1": {"mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
              "attention_head_dim": 16, "attention_hidden_size": 64},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
               "hybrid_layer_ids": [1, 3], "n_mamba_heads": 8, "mamba_headdim": 8,
               "attention_head_dim": 16, "attention_hidden_size": 64, "num_key_value_heads": 4,
               "num_query_groups": 4, "kv_channels": 8},
    "xlstm": {"num_blocks": 4, "v_dim_factor": 1.0, "qk_dim_factor": 1.0},
    # experts whose number has no default
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [16, 16],
                             "rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
    # keys and values shared between layers
    "gemma3n_text": {**_SHARED, "intermediate_size": [48] * 4,
                     "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]},
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), _GEMMA4),
    "embedding_gemma2_text": _WIDE,
    "diffusion_gemma_text": {
        **_WIDE, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "mistral_large4_text": {"kv_source_layers": [0, 0, 0, 3]},
    "gemma4_assistant": {"default": {"hidden_size_per_layer_input": 0}},
    # other names and constraints
    "cohere_compass_text": {"rope_parameters": {
        "full_attention": _ROPE, "sliding_attention": _ROPE}},
    "esm": {"vocab_size": 300, "mask_token_id": 299, "pad_token_id": 2},
    "esmc": {"num_key_value_heads": 4},
    "glm5_next_text": {"index_kpool": 2, "qk_rope_head_dim": 0, "head_dim": 0},
    "nemotron": {"num_key_value_heads": 2},
    "mpnet": {"pad_token_id": 1, "relative_attention_num_buckets": "leave"},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8],
                 "attn_layers": ["local", "lsh", "local", "lsh"], "attention_head_size": 8,
                 "feed_forward_size": 48, "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4,
                 "hash_seed": 0, "num_buckets": 4},
    "step3p5": {"sliding_window": 8},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}},
    "molmo2_adapter": {"vision_feature_layer": [1, 0], "text_hidden_size": 32},
    "neomme": {"rope_parameters": {
        "full_attention": _HALF_ROTATED, "sliding_attention": _ROPE},
        "per_layer_config": {"3": {"sliding_window": 4}}},
    "qwen4_exp_text": {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8,
                       "indexer_budget": 8, "indexer_compress_ratio": 2, "ngram_vocab_size_base": 300,
                       "hc_lowrank": 8},
    "granite4_vision": {"deepstack_layer_map": [], "downsample_rate": "1/2"},
    "xmod": {"default_language": "en_XX"},
    "chameleon": {"vocabulary_map": {"<image>": 290}},
    "emu3": {"vocabulary_map": {"<image>": 290}},
}  # fmt: skip
