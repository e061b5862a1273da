"""llama.cpp's side of `run.py`, for a Python that has llama-cpp-python: llama.py JOB.json OUT.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

_F32 = 0  # ggml's number; keys and values are half precision where nothing is said


def as_float32(path: str) -> str:
    """The file with every tensor in float32, made by llama.cpp's quantiser."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    params.allow_requantize = True
    out = path.replace(".gguf", ".f32.gguf")
    if llama_cpp.llama_model_quantize(path.encode(), out.encode(), params):
        raise SystemExit("llama.cpp cannot requantise the file")
    return out


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    vocabulary = llama_cpp.Llama(job["gguf"], vocab_only=True, verbose=False)
    ids = [vocabulary.tokenize(t.encode(), add_bos=True, special=True) for t in job["texts"]]
    starts = [vocabulary.tokenize(t.encode(), add_bos=True, special=True) for t in job["prompts"]]
    longest = max(map(len, ids)) + 8
    model = llama_cpp.Llama(
        as_float32(job["gguf"]), n_ctx=longest, n_batch=longest, n_ubatch=longest,
        logits_all=True, n_threads=1, n_threads_batch=1, verbose=False,
        type_k=_F32, type_v=_F32, flash_attn=False,
    )  # fmt: skip
    best = []
    for each in ids:
        model.reset()
        if each:
            model.eval(each)
        best.append(np.asarray(model.scores[: len(each)]).argmax(-1).tolist() if each else [])
    continued = []
    for start in starts:
        model.reset()
        model.eval(start)
        found: list[int] = []
        while len(found) < job["new"]:
            found.append(int(np.asarray(model.scores[model.n_tokens - 1]).argmax()))
            model.eval(found[-1:])
        continued.append(found)
    said = {"ids": ids, "best": best, "continued": continued}
    Path(sys.argv[2]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
