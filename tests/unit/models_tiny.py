"""Tiny random models with a byte tokenizer, saved to a folder, and datasets to run them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from texts_inputs import hand_made
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from actprobe import config as configs
from actprobe import models as room
from actprobe.base import keys
from actprobe.cache import plan, store

N_LAYERS, D = 4, 32
_COMMON = {
    "vocab_size": 300,
    "hidden_size": D,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # large enough that a wrong mask or position shows
    "pad_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_HEAD = {**_GROUPED, "head_dim": 8}
_GPT2 = {"n_embd": D, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 256, "vocab_size": 300}

_VISION = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28}
_MULTIMODAL = {
    "text_config": {**_HEAD, "sliding_window": 16},
    "vision_config": {**_VISION, "intermediate_size": 48, "patch_size": 14},
    "mm_tokens_per_image": 4,
    "image_token_index": 299,
}

_BLOOM = {"hidden_size": D, "n_layer": N_LAYERS, "n_head": 4, "vocab_size": 300}
_EXPERTS = {**_HEAD, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_GPTJ = {**_GPT2, "rotary_dim": 4, "initializer_range": 0.3}
_NEO = {"hidden_size": D, "num_layers": N_LAYERS, "num_heads": 4, "vocab_size": 300,
        "max_position_embeddings": 256, "attention_types": [[["global", "local"], 2]],
        "window_size": 16, "initializer_range": 0.3}  # fmt: skip
_SINKS = {**_HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}
_LATENT = {**_COMMON, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
           "qk_nope_head_dim": 4, "v_head_dim": 12, "n_routed_experts": 4, "n_group": 2,
           "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
           "first_k_dense_replace": 1}  # fmt: skip
_DISTIL = {"dim": D, "n_layers": N_LAYERS, "n_heads": 4, "hidden_dim": 48, "vocab_size": 300}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", {**_HEAD, "sliding_window": 16}),
    "mixtral": ("MixtralConfig", {**_HEAD, "num_local_experts": 4}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _HEAD),
    "phi3": ("Phi3Config", _GROUPED),
    "gemma": ("GemmaConfig", _HEAD),
    "gemma2": ("Gemma2Config", {**_HEAD, "sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", {**_HEAD, "sliding_window": 16}),
    "gemma3_multimodal": ("Gemma3Config", _MULTIMODAL),
    "gpt2": ("GPT2Config", {**_GPT2, "initializer_range": 0.3}),
    "neox": ("GPTNeoXConfig", _COMMON),
    "neox_sequential": ("GPTNeoXConfig", {**_COMMON, "use_parallel_residual": False}),
    "opt": ("OPTConfig", {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": D}),
    "bert": ("BertConfig", _COMMON),
    "roberta": ("RobertaConfig", _COMMON),
    "electra": ("ElectraConfig", {**_COMMON, "embedding_size": D}),
    "mpnet": ("MPNetConfig", {**_COMMON, "pad_token_id": 1}),
    "deberta": ("DebertaV2Config", {**_COMMON, "relative_attention": True, "type_vocab_size": 0}),
    "distilbert": ("DistilBertConfig", {**_DISTIL, "initializer_range": 0.3}),
    "modernbert": ("ModernBertConfig", {**_COMMON, "local_attention": 16}),
    "ministral": ("MinistralConfig", {**_HEAD, "sliding_window": 16}),
    "smollm3": ("SmolLM3Config", _GROUPED),
    "starcoder2": ("Starcoder2Config", _GROUPED),
    "nemotron": ("NemotronConfig", _HEAD),
    "apertus": ("ApertusConfig", _GROUPED),
    "glm": ("GlmConfig", _HEAD),
    "glm4": ("Glm4Config", _HEAD),
    "olmo": ("OlmoConfig", _GROUPED),
    "olmo2": ("Olmo2Config", _GROUPED),
    "olmo3": ("Olmo3Config", {**_GROUPED, "sliding_window": 16}),
    "qwen2_moe": ("Qwen2MoeConfig", {**_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", _EXPERTS),
    "gpt_oss": ("GptOssConfig", _SINKS),
    "deepseek_v3": ("DeepseekV3Config", _LATENT),
    "stablelm": ("StableLmConfig", _GROUPED),
    "phi": ("PhiConfig", _COMMON),
    "cohere2": ("Cohere2Config", {**_HEAD, "sliding_window": 16}),
    "gptj": ("GPTJConfig", _GPTJ),
    "gpt_neo": ("GPTNeoConfig", _NEO),
    "granite": ("GraniteConfig", {**_GROUPED, "residual_multiplier": 0.5}),  # not mapped
    "bloom": ("BloomConfig", {**_BLOOM, "initializer_range": 0.3}),  # not mapped; ALiBi
}
UNMAPPED = ("bloom", "granite")
PARALLEL = ("neox", "phi", "cohere2", "gptj")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v3")
ENCODERS = ("bert", "roberta", "electra", "mpnet", "deberta", "distilbert", "modernbert")


def save_model(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A random model of this family in `folder`, with its tokenizer."""
    name, fields = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**fields)
    model = transformers.AutoModel.from_config(config).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:  # norms and biases that do something
                p.add_(torch.randn_like(p) * 0.2)
    model.save_pretrained(folder)
    save_tokenizer(folder, encoder=family in ENCODERS)
    return folder


def save_tokenizer(folder: Path, encoder: bool = False, chat_template: str | None = None) -> Any:
    """One token per byte; `<s>` in front, and for encoders `</s>` at the end."""
    specials = ["<s>", "</s>", "<pad>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {t: i for i, t in enumerate(specials + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    ids = [("<s>", 0), ("</s>", 1)]
    single = "<s> $A </s>" if encoder else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return tokenizer


TEXTS = [
    "a", "The quick brown fox jumps over the lazy dog", "short text", "né ü 漢字", "x" * 90,
    "To be, or not to be, that is the question", "12 + 34 = 46", "same length", "len is same",
]  # fmt: skip


def write_texts(cache: Path, name: str = "tiny", texts: list[str] | None = None) -> plan.Target:
    """A texts artefact in the cache, and its target."""
    texts = TEXTS if texts is None else texts
    target = hand_made(cache, name, keys.spec_key({"texts": texts}))
    n = len(texts)
    digests = [keys.hashlib.sha256(t.encode()).hexdigest() for t in texts]
    table = pa.table(
        {
            "id": [f"row{i}" for i in range(n)],
            "text": texts,
            "label": pa.array(np.arange(n) % 2, pa.int32()),
            "group": pa.nulls(n, pa.string()),
            "split": pa.nulls(n, pa.string()),
            "pair": pa.nulls(n, pa.string()),
            "digest": digests,
        }
    )
    facts = {"classes": ["0", "1"], "n": n}
    store.publish([target.path], [store.write_table(target.path, table, target.record, facts)])
    return target


def model_entry(folder: Path | str, **changes: Any) -> dict[str, Any]:
    """One entry of `models` with its defaults filled in."""
    entry = {"source": str(folder), "device": "cpu", **changes}
    return configs.section("models", {"m": entry})["m"]


def make_config(cache: Path, model: dict[str, Any], *wanted: dict[str, Any]) -> dict[str, Any]:
    """The parts of a resolved config that this stage reads."""
    entries = [{"model": "m", "datasets": ["*"], **w} for w in wanted]
    return configs.resolve(
        {"experiment": "e", "cache_dir": str(cache), "models": {"m": model}, "activations": entries}
    )


def run(config: dict[str, Any], *texts: plan.Target, everything: bool = False) -> list[plan.Target]:
    """Plan and make what is missing, or everything; returns all targets."""
    from actprobe.models.run import run as run_batch

    found = targets(config, *texts)
    made = plan.make(config, found, [t.path for t in found], everything)
    for batch in made.batches:
        run_batch(batch, config, 1)
    return found


def targets(config: dict[str, Any], *texts: plan.Target) -> list[plan.Target]:
    """The stage's targets for these texts."""
    memo = keys.DigestMemo(config["cache_dir"])
    return room.targets(config, {"texts": list(texts)}, memo)


def by_name(found: list[plan.Target]) -> dict[str, plan.Target]:
    """Targets by `{site}.{position}`."""
    return {f"{t.args.site}.{t.args.position}": t for t in found}


def tiny_run(
    folder: Path,
    texts: list[str] | None = None,
    family: str = "llama",
    wanted: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, plan.Target]:
    """Run one model (in folder/model, made when it is not there) on one dataset; targets by name."""
    if not (folder / "model").exists():
        save_model(family, folder / "model")
    wanted = wanted or {"sites": ["resid_post.1"], "positions": ["last"]}
    config = make_config(folder, model_entry(folder / "model", **changes), wanted)
    return by_name(run(config, write_texts(folder, texts=texts)))
