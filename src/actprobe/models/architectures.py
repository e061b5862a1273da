"""Where each architecture keeps its sites: the modules behind TransformerLens' hook names."""

from __future__ import annotations

from dataclasses import dataclass, replace

# In the order of the forward pass, the embedding last.
SITES = (
    "resid_pre", "z", "attn_out", "resid_mid", "mlp_in", "mlp_post", "mlp_out", "resid_post", "embed",
)  # fmt: skip
INPUTS = ("resid_pre", "resid_mid", "z", "mlp_in", "mlp_post")  # read where a module takes them in


@dataclass(frozen=True)
class Family:
    """Module paths inside a layer; "a|b" is whichever a layer has, where layers are of several kinds.

    attn_out, mlp_out: the module whose output is added to the residual stream; resid_mid: the
    module whose input is the stream between the two (None: attention and MLP run in parallel);
    z: the heads' mixed values side by side, [n_heads * d_head], as the attention's output matrix
    takes them; mlp_in: what the MLP takes, after its norm; mlp_post: its neurons, [d_mlp], as its
    output matrix takes them (None: experts have their own). embed_apart: positions, segments or a
    norm stand between the token embedding and layer 0; otherwise `embed` is the input of layer 0,
    which includes Gemma's scaling. causal: right padding needs no attention mask.
    """

    attn_out: str
    mlp_out: str
    resid_mid: str | None
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
_EXPERTS = replace(_LLAMA, mlp_post=None)
_GEMMA2 = replace(
    _LLAMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    resid_mid="pre_feedforward_layernorm",
)
_OLMO2 = replace(_GEMMA2, resid_mid="mlp")  # norms only what is added
_GPT2 = Family(
    attn_out="attn",
    mlp_out="mlp",
    resid_mid="ln_2",
    z="attn.c_proj",
    mlp_in="mlp",
    mlp_post="mlp.c_proj",
    embed_apart=True,
)
_GPTJ = Family(
    attn_out="attn",
    mlp_out="mlp",
    resid_mid=None,
    z="attn.out_proj",
    mlp_in="mlp",
    mlp_post="mlp.fc_out",
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

# BERT's modules, each norm after the sum; the part of a layer under one name
_GTE = Family(
    attn_out="self_attn",
    mlp_out="mlp",
    resid_mid="post_attention_layernorm",
    z="self_attn.o_proj",
    mlp_in="mlp",
    mlp_post="mlp.down_proj",
    embed_apart=True,
    causal=False,
)
_OPENAI = replace(_GPT2, resid_mid="ln_1")
_ALBERT = Family(
    attn_out="albert_layers.0.attention.dense",
    mlp_out="albert_layers.0.ffn_output",
    resid_mid="albert_layers.0.attention.LayerNorm",
    z="albert_layers.0.attention.dense",
    mlp_in="albert_layers.0.ffn",
    mlp_post="albert_layers.0.ffn_output",
    embed_apart=True,
    causal=False,
)
# encoders of encoder-decoders
_BART = replace(_OPT, resid_mid="self_attn_layer_norm", causal=False)
_MBART = replace(_OPT, causal=False)
_T5 = Family(
    attn_out="layer.0.SelfAttention",
    mlp_out="layer.1.DenseReluDense",
    resid_mid="layer.1",
    z="layer.0.SelfAttention.o",
    mlp_in="layer.1.DenseReluDense",
    mlp_post="layer.1.DenseReluDense.wo",
    causal=False,
)
# text towers of image models
_CLIP = Family(
    attn_out="self_attn",
    mlp_out="mlp",
    resid_mid="layer_norm2",
    z="self_attn.out_proj",
    mlp_in="mlp",
    mlp_post="mlp.fc2",
    embed_apart=True,
    causal=False,
)
# layers with attention and layers with something else in its place
_QWEN_NEXT = replace(
    _LLAMA, attn_out="self_attn|linear_attn", z="self_attn.o_proj|linear_attn.out_proj"
)
_LFM2 = Family(
    attn_out="self_attn|conv",
    mlp_out="feed_forward",
    resid_mid="ffn_norm",
    z="self_attn.out_proj|conv.out_proj",
    mlp_in="feed_forward",
    mlp_post="feed_forward.w2",
)
_JAMBA = Family(
    attn_out="self_attn|mamba",
    mlp_out="feed_forward",
    resid_mid="pre_ff_layernorm",
    z="self_attn.o_proj|mamba.out_proj",
    mlp_in="feed_forward",
    mlp_post="feed_forward.down_proj",
)

FAMILIES = {
    # decoders with the layers of Llama
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "phi3", "gemma", "olmo",
         "smollm3", "seed_oss", "glm", "arcee", "helium", "nemotron", "stablelm", "cwm", "ernie4_5",
         "hunyuan_v1_dense", "hunyuan_vl_text", "internlm3", "iquestcoder", "jais2", "youtu",
         "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "qwen3_vl_text",
         "paddleocr_vl_text"),
        _LLAMA,
    ),
    "persimmon": replace(_LLAMA, z="self_attn.dense", mlp_post="mlp.dense_4h_to_h"),
    "vaultgemma": replace(_LLAMA, resid_mid="pre_feedforward_layernorm"),
    "starcoder2": replace(_LLAMA, mlp_post="mlp.c_proj"),
    "apertus": replace(_LLAMA, resid_mid="feedforward_layernorm"),
    # with experts
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "deepseek_v2",
         "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe", "glm4_moe",
         "glm4_moe_lite", "glm4v_moe_text", "glm_moe_dsa", "hunyuan_v1_moe", "minimax_m2",
         "mistral4", "qwen3_omni_moe_text", "qwen3_vl_moe_text", "aria_text"),
        _EXPERTS,
    ),
    "llama4_text": replace(
        _EXPERTS, attn_out="self_attn", mlp_out="feed_forward", mlp_in="feed_forward"
    ),
    # with norms after attention and MLP
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "exaone4": _OLMO2,
    "flex_olmo": replace(_OLMO2, mlp_post=None),
    **dict.fromkeys(
        ("glm4", "glm4v_text", "glm_image_text", "glm_ocr_text"),
        replace(_LLAMA, attn_out="post_self_attn_layernorm", mlp_out="post_mlp_layernorm"),
    ),
    # with linear attention, convolutions or state spaces in some layers
    "qwen3_5_text": _QWEN_NEXT,
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe_text"), replace(_QWEN_NEXT, mlp_post=None)),
    "lfm2": _LFM2,
    "lfm2_moe": replace(_LFM2, mlp_post=None),
    "bamba": _JAMBA,
    "jamba": replace(_JAMBA, mlp_post=None),
    "recurrent_gemma": Family(
        attn_out="temporal_block",
        mlp_out="mlp_block",
        resid_mid="channel_pre_norm",
        z="temporal_block.o_proj|temporal_block.linear_out",
        mlp_in="mlp_block",
        mlp_post="mlp_block.down_proj",
    ),
    # with attention and MLP side by side
    "gpt_neox": _NEOX,
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "phi": replace(_LLAMA, resid_mid=None, z="self_attn.dense", mlp_post="mlp.fc2"),
    "cohere": replace(_LLAMA, resid_mid=None),
    "cohere2": replace(_LLAMA, resid_mid=None),
    "cohere2_moe": replace(_EXPERTS, resid_mid=None),
    "falcon": replace(
        _NEOX, attn_out="self_attention", resid_mid=None, z="self_attention.dense"
    ),
    # older decoders
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": replace(_GPT2, z="attn.attention.out_proj"),
    "opt": _OPT,
    "biogpt": _OPT,
    "xglm": _OPT,
    "openai-gpt": _OPENAI,
    "bloom": Family(
        attn_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        resid_mid="post_attention_layernorm",
        z="self_attention.dense",
        mlp_in="mlp",
        mlp_post="mlp.dense_4h_to_h",
        embed_apart=True,
    ),
    "mpt": Family(
        attn_out="attn",
        mlp_out="ffn.down_proj",
        resid_mid="norm_2",
        z="attn.out_proj",
        mlp_in="ffn",
        mlp_post="ffn.down_proj",
    ),
    # encoders
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2", "deberta",
         "bert-generation", "data2vec-text", "ernie", "rembert", "roc_bert", "roformer", "splinter"),
        _BERT,
    ),
    **dict.fromkeys(("nomic_bert", "gte"), _GTE),
    "jina_embeddings_v3": replace(_GTE, mlp_post="mlp.fc2"),
    "eurobert": replace(_LLAMA, causal=False),
    "albert": _ALBERT,
    "mpnet": replace(
        _BERT, attn_out="attention.attn.o", z="attention.attn.o", resid_mid="attention.LayerNorm"
    ),
    "distilbert": Family(
        attn_out="attention.out_lin",
        mlp_out="ffn.lin2",
        resid_mid="sa_layer_norm",
        z="attention.out_lin",
        mlp_in="ffn.lin1",
        mlp_post="ffn.lin2",
        embed_apart=True,
        causal=False,
    ),
    "modernbert": Family(
        attn_out="attn",
        mlp_out="mlp",
        resid_mid="mlp_norm",
        z="attn.Wo",
        mlp_in="mlp",
        mlp_post="mlp.Wo",
        embed_apart=True,
        causal=False,
    ),
    "modernbert-decoder": Family(
        attn_out="attn",
        mlp_out="mlp",
        resid_mid="mlp_norm",
        z="attn.Wo",
        mlp_in="mlp",
        mlp_post="mlp.Wo",
        embed_apart=True,
    ),
    # encoders of encoder-decoders
    **dict.fromkeys(("bart", "marian", "mvp", "plbart", "blenderbot-small"), _BART),
    **dict.fromkeys(("mbart", "m2m_100", "pegasus", "blenderbot"), _MBART),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    # text towers
    **dict.fromkeys(
        ("clip_text_model", "clipseg_text_model", "xclip_text_model", "metaclip_2_text_model",
         "siglip_text_model"),
        _CLIP,
    ),
}  # fmt: skip
