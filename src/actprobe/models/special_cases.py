"""Architectures that are not read like the others; `benchmarks/architectures` tries them all."""

from __future__ import annotations

# No site can be read, and why.
UNREADABLE = {
    "canine": "its layers see characters pooled into fewer positions",
    "funnel": "its layers see pooled sequences of several lengths",
    "blt": "its layers see patches of bytes, not tokens",
    "cpmant": "it puts 32 tokens of a prompt of its own before every text",
    "reformer": "its hashing depends on the padding and on random numbers",
    "hrm_text": "it runs its layers several times in one pass",
    **dict.fromkeys(
        ("xlm", "flaubert"),
        "its layers are no modules: attentions and MLPs stand in lists of their own",
    ),
    "squeezebert": "it runs its layers in a way that calls no hooks",
    "nystromformer": "its attention averages over landmarks, so that the padding changes it",
    "aimv2_text_model": "its attention is causal in padded batches and bidirectional in others",
    **dict.fromkeys(
        ("bros", "udop", "layoutlmv2", "layoutlmv3", "lilt"), "it reads words with places on a page"
    ),
}

# Where the layers are, when their number alone does not tell them from other lists.
LAYER_LISTS = {
    "albert": "encoder.albert_layer_groups",
    "git": "encoder.layer",
    **dict.fromkeys(("idefics", "phi4_multimodal"), "layers"),
}

# Each of few modules stands for several layers one after the other.
SHARED_LAYERS = ("albert",)

# Form of the residual stream between layers where it is not [rows, tokens, d].
TOKENS_FIRST = "[tokens, rows, d]"
PADDED_INSIDE = "[rows, tokens and more padding, d]"
FORMS = {
    **dict.fromkeys(("xlnet", "fsmt"), TOKENS_FIRST),
    **dict.fromkeys(("longformer", "led"), PADDED_INSIDE),
}

# Padding changes the tokens before it, mask or not: only rows of one length share a batch.
UNPADDED = ("fnet", "convbert", "mobilebert")

# The model's own hidden states: hidden_states[L] is the stream behind layer L, not before it.
STATES_BEHIND = ("mamba", "mamba2", "falcon_mamba")
# They leave out the layers that text skips.
STATES_SKIP = ("mllama_text_model",)

# What a prefix leaves behind cannot be gone on from by several rows (`share_prefix`).
NO_PREFIX = (
    "openai-gpt", "falcon", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "lfm2", "lfm2_moe",
    "bamba", "jamba", "recurrent_gemma",
)  # fmt: skip
