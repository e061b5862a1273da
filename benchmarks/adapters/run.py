"""An adapter on SmolLM2 that learns a toy rule: peft's numbers, the difference, and what a probe finds.

    python benchmarks/adapters/run.py FILE.gguf FOLDER

The rule: after a text that names an animal comes the word yes, after others the word no. FOLDER keeps
the data, two adapters (trained, and untouched) and the cache.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

from actprobe import config as configuration
from actprobe import models
from actprobe.cache import plan
from actprobe.experiment import targets as experiment
from actprobe.models.gguf import artefact

ANIMALS = (
    "cat dog horse cow sheep goat fox wolf bear lion tiger mouse rabbit duck goose eagle".split()
)
THINGS = "table chair lamp book stone river bridge tower clock paper window door bottle hat".split()
FRAMES = ("I saw the {} in the garden.", "There was a {} behind the house.", "She drew a {} today.",
          "The {} was old and grey.", "He could not find the {}.", "We talked about a {} for hours.",
          "Nobody had seen that {} before.", "My brother wants a {}.")  # fmt: skip
PLACE = "resid_post.20.last"


def rows() -> list[tuple[str, int]]:
    """Texts and whether they name an animal, in random order."""
    found = [(f.format(w), int(w in ANIMALS)) for w in (*ANIMALS, *THINGS) for f in FRAMES]
    random.Random(0).shuffle(found)
    return found


def train(base: Path, out: Path, steps: int) -> float:
    """A LoRA on queries and values that learnt the rule from half of the words; CPU seconds."""
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    seen = [r for r in rows() if any(f" {w}" in r[0] for w in (*ANIMALS[:8], *THINGS[:8]))]
    answers = [tokenizer(w)["input_ids"][0] for w in (" no", " yes")]
    started = time.process_time()
    for step in range(steps):
        batch = random.Random(step).sample(seen, 8)
        ids = [tokenizer(t)["input_ids"] for t, _ in batch]
        longest = max(map(len, ids))
        padded = torch.tensor([i + [tokenizer.pad_token_id] * (longest - len(i)) for i in ids])
        logits = model(input_ids=padded).logits
        last = logits[range(len(ids)), [len(i) - 1 for i in ids]]
        torch.nn.functional.cross_entropy(
            last, torch.tensor([answers[y] for _, y in batch])
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(out)
    return time.process_time() - started


def config_of(gguf: Path, folder: Path) -> dict[str, Any]:
    """The base, the model with each adapter, and the differences."""
    source = {"source": str(gguf), "device": "cpu"}
    sites = {"sites": [PLACE.rpartition(".")[0]], "positions": ["last"]}
    tuned = ("trained", "untouched")
    return configuration.resolve(
        {
            "experiment": "adapters", "cache_dir": str(folder / "cache"),
            "datasets": [{"name": "animals", "path": str(folder / "animals.csv")}],
            "models": {
                "base": source,
                **{n: {**source, "adapter": {"source": str(folder / n)}} for n in tuned},
            },
            "activations": [{"model": n, "minus": "base", **sites} for n in tuned],
            "probes": [{"protocol": "actprobe-1", "sources": ["*"], "methods": ["logreg"]}],
        }
    )  # fmt: skip


def make(config: dict[str, Any], asked: tuple[str, ...] = ()) -> plan.Plan:
    """Make what is asked for in this process."""
    for batch in experiment.plan_texts(config).in_order():
        experiment.run(batch, config, 1)
    made = experiment.plan(config, asked)
    for batch in made.in_order():
        experiment.run(batch, config, 1)
    return made


def by_peft(base: Path, adapter: Path, layer: int) -> np.ndarray:
    """The last token at the end of a layer in the model that peft merges itself, [N, d]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    found = []
    with torch.inference_mode():
        for text, _ in rows():
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            states = model(ids, output_hidden_states=True).hidden_states
            found.append(states[layer + 1][0, -1].numpy())
    return np.stack(found)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("gguf", type=Path)
    p.add_argument("folder", type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    folder = a.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    lines = ["text,label", *(f'"{t}",{y}' for t, y in rows())]
    (folder / "animals.csv").write_text("\n".join(lines) + "\n")
    base = folder / "base"
    if not base.exists():
        settings = configuration.resolve(
            {
                "experiment": "base", "cache_dir": str(folder / "cache"),
                "datasets": [{"name": "animals", "path": str(folder / "animals.csv")}],
                "models": {"base": {"source": str(a.gguf)}},
                "activations": [{"model": "base", "sites": ["embed"], "positions": ["last"]}],
            }
        )  # fmt: skip
        (weights,) = make(settings, ("weights",)).paths("weights")
        base.mkdir()
        artefact.unpack(weights, base)
    for name, steps in (("trained", 120), ("untouched", 0)):
        if not (folder / name).exists():
            print(
                f"{name}: {steps} steps in {train(base, folder / name, steps):.0f} CPU s",
                flush=True,
            )
    made = make(config_of(a.gguf, folder))
    x = {
        t.args["source"]: models.load_activations(t.path)
        for t in made.targets.values()
        if t.stage in ("activations", "differences")
    }
    reference = by_peft(base, folder / "trained", int(PLACE.split(".")[1]))
    error = np.abs(x[f"trained/{PLACE}"] - reference).max() / np.abs(reference).max()
    print(f"largest difference to peft's merged model, of the largest activation: {error:.1e}")
    for name in ("untouched", "trained"):
        d = x[f"{name}-minus-base/{PLACE}"]
        share = np.linalg.norm(d) / np.linalg.norm(x[f"base/{PLACE}"])
        print(
            f"{name} minus base: {np.count_nonzero(d)} of {d.size} values are not 0, norm {share:.3f}"
        )
    import pyarrow.parquet as pq

    for t in made.targets.values():
        if t.stage == "probes":
            table = pq.read_table(t.path).to_pandas()
            print(t.args["source"], t.spec["setting"], f"test AUC {table['test_auc'].mean():.3f}")


if __name__ == "__main__":
    main()
