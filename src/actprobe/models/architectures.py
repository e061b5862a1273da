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
    """Module paths inside a layer.

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

FAMILIES = {
    # decoders with the layers of Llama
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "phi3", "gemma", "olmo",
         "smollm3", "seed_oss", "glm", "arcee", "helium", "nemotron", "stablelm"),
        _LLAMA,
    ),
    "starcoder2": replace(_LLAMA, mlp_post="mlp.c_proj"),
    "apertus": replace(_LLAMA, resid_mid="feedforward_layernorm"),
    # with experts
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "deepseek_v2",
         "deepseek_v3"),
        _EXPERTS,
    ),
    # with norms after attention and MLP
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "exaone4": _OLMO2,
    "glm4": replace(
        _LLAMA, attn_out="post_self_attn_layernorm", mlp_out="post_mlp_layernorm"
    ),
    # with attention and MLP side by side
    "gpt_neox": _NEOX,
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "phi": replace(_LLAMA, resid_mid=None, z="self_attn.dense", mlp_post="mlp.fc2"),
    "cohere": replace(_LLAMA, resid_mid=None),
    "cohere2": replace(_LLAMA, resid_mid=None),
    # older decoders
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": replace(_GPT2, z="attn.attention.out_proj"),
    "opt": _OPT,
    "biogpt": _OPT,
    # encoders
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2"), _BERT
    ),
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
}  # fmt: skip
