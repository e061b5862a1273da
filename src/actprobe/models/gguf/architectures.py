"""The architectures of GGUF files that are read: what their headers mean in transformers' configs.

Written from llama.cpp's converter (`conversion/*.py`) and its readers of headers (`src/models/*.cpp`),
and compared with both: `benchmarks/gguf`. transformers' own table leaves out scalings, head widths and
scales that decide what a model computes. Light: a plan uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Header
from actprobe.models.gguf import configs
from actprobe.models.gguf.stated import INSTEAD, Stated


@dataclass(frozen=True)
class Architecture:
    """model_type: transformers' name; config: its config by what a header states."""

    model_type: str
    config: Callable[[Stated], configs.Config]


def describe(header: Header, what: str) -> configs.Config:
    """The `config.json` of a model in a GGUF file.

    Rotary factors that are tensors of the file are not in it yet (`rotary.complete`). Raises BadInput
    for an architecture that is not read, a header whose numbers do not fit its tensors, and one that
    states what is not understood.
    """
    name = header.get("general.architecture")
    if not isinstance(name, str):
        raise BadInput(f"{what}: the header names no architecture (general.architecture)")
    if (known := ARCHITECTURES.get(name)) is None:
        raise BadInput(
            f"{what}: its architecture is {name[:60]!r}, which is not read from GGUF; expected one of "
            f"{', '.join(sorted(ARCHITECTURES))}. {INSTEAD[0].upper() + INSTEAD[1:]}"
        )
    stated = Stated(header, what)
    stated.expect("attention.causal", True, "an encoder made from a decoder is not read")
    layers = configs.layers(stated)
    config = {
        "model_type": known.model_type,
        "num_hidden_layers": layers,
        **_embedding(stated),
        **_special_tokens(header),
        **known.config(stated),
    }
    stated.refuse_the_rest()
    return config


def _embedding(s: Stated) -> configs.Config:
    table = s.header.tensors.get("token_embd.weight")
    if table is None:
        raise BadInput(f"{s.what}: missing tensor token_embd.weight")
    width = s.number("embedding_length")
    if len(table.shape) != 2 or table.shape[1] != width:
        raise BadInput(
            f"{s.what}: its header states embedding_length {width:,}, and token_embd.weight is "
            f"{table.shape}"
        )
    words = s.header.count("tokenizer.ggml.tokens")
    if words is not None and words > table.shape[0]:
        raise BadInput(
            f"{s.what}: its vocabulary has {words:,} tokens, and there are {table.shape[0]:,} embeddings"
        )
    return {
        "vocab_size": table.shape[0],
        "tie_word_embeddings": not s.has("output.weight"),
        "hidden_size": width,
    }


def _special_tokens(header: Header) -> configs.Config:
    given = {
        f"{name}_token_id": header.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items()
    }
    words = header.count("tokenizer.ggml.tokens") or 0
    return {k: v if isinstance(v, int) and 0 <= v < words else None for k, v in given.items()}


ARCHITECTURES = {
    "llama": Architecture("llama", configs.llama),
    "qwen2": Architecture("qwen2", configs.qwen2),
    "qwen3": Architecture("qwen3", configs.qwen3),
    "qwen2moe": Architecture("qwen2_moe", configs.qwen2moe),
    "qwen3moe": Architecture("qwen3_moe", configs.qwen3moe),
    "gemma2": Architecture("gemma2", configs.gemma2),
    "gemma3": Architecture("gemma3_text", configs.gemma3),
    "phi3": Architecture("phi3", configs.phi3),
    "stablelm": Architecture("stablelm", configs.stablelm),
    "gpt2": Architecture("gpt2", configs.gpt2),
    "starcoder2": Architecture("starcoder2", configs.starcoder2),
    "falcon": Architecture("falcon", configs.falcon),
    "bloom": Architecture("bloom", configs.bloom),
    "nemotron": Architecture("nemotron", configs.nemotron),
    "mamba": Architecture("mamba", configs.mamba),
    "lfm2": Architecture("lfm2", configs.lfm2),
    "qwen35": Architecture("qwen3_5_text", configs.qwen35),
    "minimax-m2": Architecture("minimax_m2", configs.minimax),
}
