"""What is measured: a random Llama of 8 layers, and 512 prompts of 8 to 256 tokens."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

SITES = (2, 4, 5)  # layers whose resid_post is read
MODEL = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


def make(folder: Path) -> None:
    """`model/` with a tokenizer of one token per word, `prompts.csv`, and `tokens.npz`."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**MODEL)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    words = ["<pad>", "<unk>", *(f"w{i}" for i in range(2, MODEL["vocab_size"]))]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder / "model")

    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(48), 0.75, 512)).astype(int), 8, 256)
    ids = rng.integers(2, MODEL["vocab_size"], lengths.sum())
    np.savez(folder / "tokens.npz", ids=ids, lengths=lengths)
    with open(folder / "prompts.csv", "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["text", "label"])
        for i, row in enumerate(prompts(folder)):
            rows.writerow([" ".join(words[t] for t in row), i % 2])


def prompts(folder: Path) -> list[np.ndarray]:
    """Token ids of each prompt."""
    saved = np.load(folder / "tokens.npz")
    return np.split(saved["ids"], np.cumsum(saved["lengths"])[:-1])
