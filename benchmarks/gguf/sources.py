"""Architectures and vocabularies against llama.cpp's source tree: its converter, its expected token ids.

    python benchmarks/gguf/sources.py LLAMA_CPP FOLDER

LLAMA_CPP is the source tree (the source archive of llama-cpp-python holds it as vendor/llama.cpp);
FOLDER takes tiny random models of transformers and the GGUF files that `conversion` makes of them, in a
process of its own: it brings a `gguf` package of its own.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from actprobe.base.errors import ActprobeError
from actprobe.models.gguf.opened import VOCABULARY, open_parts
from actprobe.models.gguf.parts import Part
from actprobe.models.gguf.tokenizer import write as write_tokenizer

V, D, H, KV, F, L, P = 300, 64, 4, 2, 96, 3, 128
_LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
_HEAD = {"head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA = {**_HEAD, "query_pre_attn_scalar": 16, "sliding_window": 8}
_GEMMA3 = {**_GEMMA, "num_hidden_layers": 7}
_BOTH = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
_LONG = {
    "rope_type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)], "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_LINEAR_ATTENTION = {
    "num_hidden_layers": 4, **_HEAD, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "mtp_num_hidden_layers": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                        "partial_rotary_factor": 0.25, "mrope_section": [2, 1, 1]},
}  # fmt: skip
_FALCON = {
    "new_decoder_architecture": False, "multi_query": True, "num_kv_heads": 1, "n_head_kv": 1,
    "parallel_attn": True, "bias": False, "alibi": False,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama-3": ("llama", {"rope_parameters": _LLAMA3, "max_position_embeddings": 131072}),
    "llama-linear": ("llama", {"rope_parameters": _LINEAR}),
    "llama-yarn": ("llama", {"rope_parameters": {**_YARN, "rope_theta": 10000.0}}),
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-headdim": ("llama", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2-yarn": ("qwen2", {"rope_parameters": {**_YARN, "rope_theta": 1e6}}),
    "qwen3": ("qwen3", _HEAD),
    "qwen3-headdim": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen2moe": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 48}),
    "qwen3moe": ("qwen3_moe", {**_EXPERTS, **_HEAD, "norm_topk_prob": True}),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": ("gemma3_text", _GEMMA3),
    "gemma3-linear": ("gemma3_text", {**_GEMMA3, "rope_parameters": _BOTH}),
    "phi3": ("phi3", {}),
    "phi3-window": ("phi3", {"sliding_window": 16, "original_max_position_embeddings": 128}),
    "phi3-long": ("phi3", {"max_position_embeddings": 4096, "rope_parameters": _LONG,
                           "original_max_position_embeddings": 64}),
    "phi3-partial": ("phi3", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "stablelm": ("stablelm", {}),
    "stablelm-2": ("stablelm", {"use_qkv_bias": True, "use_parallel_residual": False,
                                "partial_rotary_factor": 0.5}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True}),
    "gpt2": ("gpt2", {"n_embd": D, "n_head": H, "n_layer": L, "n_positions": P, "n_ctx": P,
                      "n_inner": 4 * D}),
    "starcoder2": ("starcoder2", {"use_bias": True}),
    "falcon": ("falcon", _FALCON),
    "bloom": ("bloom", {"n_layer": L, "n_head": H, "seq_length": P}),
    "nemotron": ("nemotron", {}),
    "mamba": ("mamba", {"state_size": 8, "expand": 2, "intermediate_size": 2 * D, "vocab_size": 304}),
    "lfm2": ("lfm2", {"full_attn_idxs": [1], "block_auto_adjust_ff_dim": False}),
    "qwen35": ("qwen3_5_text", _LINEAR_ATTENTION),
    "minimax": ("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2, **_HEAD,
                               "rotary_dim": 8}),
}  # fmt: skip


def save(name: str, folder: Path) -> None:
    """A random model with norms, biases and gates that do something, and a tokenizer of bytes."""
    kind, fields = CASES[name]
    common = {
        "vocab_size": V, "hidden_size": D, "num_attention_heads": H, "num_key_value_heads": KV,
        "intermediate_size": F, "num_hidden_layers": L, "max_position_embeddings": P,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**common, **fields})
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if n.endswith("A_log"):
                p.copy_(torch.rand_like(p))
            elif p.ndim < 2 or min(p.shape) == 1:
                p.add_(torch.randn_like(p) * 0.2)
            else:
                p.copy_(torch.randn_like(p) / math.sqrt(p.shape[-1]))
    model.save_pretrained(folder)
    words = ["<s>", "</s>", "<pad>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += ["he", *(f"<extra{n}>" for n in range(V - 1 - len(words)))]
    backend = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("h", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)


def by_llama_cpp(tree: Path, folder: Path, out: Path) -> None:
    """The model's GGUF file, by llama.cpp's converter."""
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    import gguf
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    architecture = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
    kind = get_model_class(architecture)
    kind.set_vocab = lambda self: self._set_vocab_gpt2()
    kind.no_mtp = True
    with torch.inference_mode():
        kind(folder, gguf.LlamaFileType.ALL_F32, out, eager=True).write()


def architectures(folder: Path) -> Iterator[str]:
    """The largest difference of the logits of each model, read from its folder and from its file."""
    from run import converted

    for name in CASES:
        own = folder / name
        read = converted([folder / f"{name}.gguf"], folder / f"{name} converted")
        a, b = (
            transformers.AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval()
            for f in (own, read)
        )
        torch.manual_seed(1)
        ids = torch.randint(4, 256, (2, 100))
        with torch.inference_mode():
            x, y = a(ids).logits, b(ids).logits
        yield f"{name}: logits differ by {float((x - y).abs().max()):.1e} of {float(x.abs().max()):.1f}"


def vocabularies(tree: Path, folder: Path) -> Iterator[str]:
    """How many of llama.cpp's own tests of tokens agree, by vocabulary."""
    for path in sorted((tree / "models").glob("*.gguf")):
        texts = Path(f"{path}.inp")
        if not texts.exists():
            continue
        try:
            opened = open_parts([Part({"file": str(path)})], VOCABULARY)
            write_tokenizer(opened.header, path.name, folder / path.stem)
        except ActprobeError as e:
            yield f"{path.stem}: refused: {str(e)[:90]}"
            continue
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / path.stem)
        asked = texts.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        expected = [list(map(int, o.split())) for o in Path(f"{path}.out").read_text().splitlines()]
        found = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in asked]
        equal = sum(a == b for a, b in zip(found, expected, strict=False))
        yield f"{path.stem}: {equal} of {min(len(asked), len(expected))} texts equal"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("llama_cpp", type=Path)
    p.add_argument("folder", type=Path)
    p.add_argument("--write", action="store_true", help="write the files, and compare nothing")
    a = p.parse_args()
    transformers.logging.set_verbosity_error()
    a.folder.mkdir(parents=True, exist_ok=True)
    if a.write:
        for name in CASES:
            save(name, a.folder / name)
            by_llama_cpp(a.llama_cpp, a.folder / name, a.folder / f"{name}.gguf")
        return
    command = [sys.executable, __file__, "--write", str(a.llama_cpp), str(a.folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for line in (*vocabularies(a.llama_cpp, a.folder), *architectures(a.folder)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
