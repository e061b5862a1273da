"""An experiment that is run in this process: a tiny causal model, two datasets, kept probes."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import models_tiny
import torch
import transformers
import yaml

from actprobe import config as configuration
from actprobe import results, texts
from actprobe.experiment import targets as experiment
from actprobe.results.rows import Collections

WORDS = "the a red blue small old dog house tree sees likes finds under near never".split()
SOURCE = "tiny/resid_post.1"


def save_causal(folder: Path) -> Path:
    """A tiny Llama with its head, one token per byte."""
    name, fields = models_tiny.FAMILIES["llama"]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**fields, bos_token_id=0, eos_token_id=1)
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    models_tiny.save_tokenizer(folder)
    return folder


def write_dataset(path: Path, n: int = 120, seed: int = 0) -> None:
    """Short sentences; the label says whether a cat is in them."""
    rng = random.Random(f"{path.name}{seed}")
    lines = ["id,text,label"]
    for i in range(n):
        words = rng.choices(WORDS, k=rng.randint(2, 7))
        if i % 2:
            words[rng.randrange(len(words))] = "cat"
        lines.append(f"r{i},{' '.join(words)} {i},{('no', 'yes')[i % 2]}")
    path.write_text("\n".join(lines) + "\n")


QUICK = {
    "name": "quick", "description": "one seed, small grids", "extends": "actprobe-1", "seeds": [0],
    "settings": {"normal": {}},
    "methods": {"logreg": {"C": {"logspace": [-2, 0, 2]}}, "mlp": {"solver": {"max_iter": 50}},
                "knn": {"neighbours": 9}, "ksparse_b": {"ks": [1, 5]}},
}  # fmt: skip
PAPER = {
    "name": "paper", "description": "few steps", "extends": "saeprobes-paper", "seeds": [0],
    "methods": {"attention": {"steps": 20, "learning_rate": 0.05}},
}  # fmt: skip


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """The config of the experiment below a folder."""
    return {
        "experiment": "toy",
        "cache_dir": str(folder / "cache"),
        "results_dir": str(folder / "results"),
        "datasets": [
            {"name": d, "path": str(folder / f"{d}.csv"), "id": "id", "positive": "yes"} for d in "ab"
        ],
        "models": {"tiny": {"source": str(folder / "model"), "device": "cpu"}},
        "activations": [
            {"model": "tiny", "sites": ["resid_post.1"],
             "positions": ["mean", "last", "max", "tokens"]},
        ],
        "saes": {
            "codes": {"model": "tiny", "site": "resid_post.1", "position": "mean",
                      "train": {"width": 64, "k": 8, "epochs": 1, "rows": "all", "datasets": ["a"]}},
        },
        "probes": [
            {"protocol": str(folder / "quick.yaml"), "sources": [f"{SOURCE}.*"],
             "methods": ["logreg", "mean_difference"], "datasets": ["a"], "apply_to": ["b"]},
            {"protocol": str(folder / "quick.yaml"), "sources": [f"{SOURCE}.mean"],
             "methods": ["knn", "mlp"], "datasets": ["a"]},
            {"protocol": str(folder / "paper.yaml"), "settings": ["multi_token"],
             "sources": [f"{SOURCE}.tokens"], "methods": ["attention"], "datasets": ["a"]},
            {"protocol": str(folder / "quick.yaml"), "sources": ["codes"], "datasets": ["a"],
             "methods": ["ksparse_b"]},
        ],
        **changes,
    }  # fmt: skip


def make(folder: Path, **changes: Any) -> Path:
    """Run the experiment in this process; returns its config file."""
    save_causal(folder / "model")
    for d in "ab":
        write_dataset(folder / f"{d}.csv")
    for protocol in (QUICK, PAPER):
        (folder / f"{protocol['name']}.yaml").write_text(yaml.safe_dump(protocol))
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config(folder, **changes)))
    run(file)
    return file


@cache
def once() -> Path:
    """The config file of an experiment that was run once in this process; never change it."""
    folder = Path(tempfile.mkdtemp(prefix="actprobe-face-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make(folder)


def run(file: Path) -> None:
    """Make all that a config file asks for and that is not there."""
    resolved = configuration.resolve(configuration.load_file(file))
    planned = experiment.plan_texts(resolved)
    for batch in planned.in_order():
        experiment.run(batch, resolved, 1)
    planned = experiment.plan(resolved)
    for batch in planned.in_order():
        experiment.run(batch, resolved, 1)
    paths = planned.paths("texts")
    results.make_tables(
        resolved, planned.paths("probes"), texts.describe(paths), results.encoded(planned),
        evaluations=planned.paths("evaluations"), collections=Collections(paths),
        rules=results.threshold_rules(planned),
    )  # fmt: skip
