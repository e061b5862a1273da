"""A tiny project in a temporary folder, run by the real snakemake: random model, made-up texts."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORDS = "the a red blue small old cat dog house tree sees likes finds under near never".split()


def write_dataset(path: Path, n: int = 160, seed: int = 0) -> None:
    """A csv of short sentences; the label says whether 'cat' occurs, with some noise."""
    rng = random.Random(f"{path.name}{seed}")
    lines = ["text,label"]
    for i in range(n):
        words = rng.choices([w for w in WORDS if w != "cat"], k=rng.randint(3, 12))
        if i % 2:
            words[rng.randrange(len(words))] = "cat"
        lines.append(f"{' '.join(words)},{i % 2}")
    path.write_text("\n".join(lines) + "\n")


def save_tiny_model(folder: Path) -> Path:
    """A 3-layer Llama with d_model 16, random weights and a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["<s>", "<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(folder)
    return folder


class Project:
    """One working folder with a config; edits are made on `config` and saved by every run."""

    def __init__(self, folder: Path, model: Path, datasets: Iterable[str] = "ab"):
        self.folder = folder
        self.config: dict[str, Any] = {
            "experiment": "toy",
            "datasets": [],
            "models": {"tiny": {"source": str(model), "prepend_bos": True}},
            "activations": [
                {"model": "tiny", "sites": ["resid_post.0", "resid_post.1"], "positions": ["mean"]}
            ],
            "probes": [
                {"protocol": "saeprobes-0.4.2", "sources": ["tiny/*"], "methods": ["logreg"]}
            ],
        }
        for name in datasets:
            self.add_dataset(name)

    def add_dataset(self, name: str) -> None:
        write_dataset(self.folder / f"{name}.csv")
        self.config["datasets"].append({"name": name, "path": f"{name}.csv"})

    def copy_of(self, other: Project) -> Project:
        self.config = copy.deepcopy(other.config)
        return self

    def command(self, *args: str, cores: int = 2) -> list[str]:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        return [
            sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"),
            "--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml"),
            "--cores", str(cores), *args,
        ]  # fmt: skip

    def snakemake(self, *args: str, ok: bool = True) -> str:
        """Run snakemake; returns everything it printed, and fails unless it ended as expected."""
        p = subprocess.run(
            self.command(*args), cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert (p.returncode == 0) == ok, p.stdout
        return p.stdout

    def actprobe(self, *args: str, ok: bool = True) -> str:
        command = [sys.executable, "-m", "actprobe.cli", *args]
        p = subprocess.run(
            command, cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert (p.returncode == 0) == ok, p.stdout
        return p.stdout

    def environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k != "ACTPROBE_PLAN"}
        return env | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}

    def plan(self) -> dict[str, int]:
        """Stage -> number of targets that the next run would make."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        rows = json.loads(self.actprobe("plan", "--json", "--configfile", "config.yaml"))["summary"]
        found: dict[str, int] = {}
        for r in rows:
            found[r["stage"]] = found.get(r["stage"], 0) + r["to_make"]
        return {k: v for k, v in found.items() if v}

    def cached(self, stage: str = "") -> list[Path]:
        root = self.folder / "cache" / stage
        return sorted(p for p in root.rglob("*.*.*") if p.is_file() and p.suffix != ".json")

    def snapshot(self) -> dict[Path, tuple[str, int]]:
        """Every cached file with its digest and modification time."""
        return {
            p.relative_to(self.folder): (
                hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns,
            )
            for p in self.cached()
        }  # fmt: skip

    def digests(self) -> dict[Path, str]:
        return {p: d for p, (d, _) in self.snapshot().items()}
