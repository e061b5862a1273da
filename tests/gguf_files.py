"""Small GGUF files, written by the `gguf` package from random Llamas with a token per byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from tokenizers import pre_tokenizers

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
TOKENS = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp turns them: halves of a head become pairs."""
    shape = (heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)


def tensors_of(model: Any) -> dict[str, np.ndarray]:
    """The tensors of a `LlamaModel` by their names in GGUF."""
    found = {}
    for name, p in model.state_dict().items():
        values, parts = p.numpy(), name.split(".")
        if name == "embed_tokens.weight":
            found["token_embd.weight"] = values
        elif name == "norm.weight":
            found["output_norm.weight"] = values
        else:
            kind, c = _NAMES[".".join(parts[2:-1])], model.config
            if kind in ("attn_q", "attn_k"):
                heads = c.num_attention_heads if kind == "attn_q" else c.num_key_value_heads
                values = permuted(values, heads)
            found[f"blk.{parts[1]}.{kind}.weight"] = values
    return found


def values_of(model: Any, **changes: Any) -> dict[str, Any]:
    """The values of the header for a `LlamaModel`; None leaves one out."""
    c = model.config
    return {
        "general.architecture": "llama",
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": c.hidden_size // c.num_attention_heads,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if i < 3 else 1 for i in range(len(TOKENS))],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        **changes,
    }


def write(
    path: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """A GGUF file; matrices in the given type where their rows can be cut into its blocks."""
    writer = GGUFWriter(path, values["general.architecture"])
    for key, value in values.items():
        if value is None or key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, array in tensors.items():
        if array.ndim > 1 and kind != GGMLQuantizationType.F32 and not array.shape[-1] % 32:
            writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def cut(path: Path, n: int) -> list[Path]:
    """The bytes of a file in n files."""
    data = path.read_bytes()
    step = -(-len(data) // n)
    pieces = []
    for i in range(n):
        pieces.append(path.with_name(f"part_{i + 1}.bin"))
        pieces[-1].write_bytes(data[i * step : (i + 1) * step])
    return pieces


def split(values: Mapping[str, Any], tensors: Mapping[str, np.ndarray], folder: Path) -> list[Path]:
    """A model in two GGUF files, as llama.cpp splits it."""
    names, found = list(tensors), []
    for n, chosen in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        own = {
            **(values if n == 0 else {"general.architecture": "llama"}),
            "split.no": n, "split.count": 2, "split.tensors.count": len(names),
        }  # fmt: skip
        path = folder / f"model-{n + 1:05d}-of-00002.gguf"
        found.append(write(path, own, {k: tensors[k] for k in chosen}))
    return found


def number_at(path: Path, key: str, number: int) -> None:
    """Overwrite the uint32 value of a key in a file."""
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    data[at + 4 : at + 8] = struct.pack("<I", number)
    path.write_bytes(data)
