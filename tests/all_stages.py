"""An experiment that has every stage, small enough to be made in a minute, in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import torch
import yaml
from project import WORDS, save_tiny_model, write_dataset
from wandb_server import Server

from actprobe import config as configuration
from actprobe.cache import plan
from actprobe.experiment import targets as experiment
from actprobe.lora import synthetic
from actprobe.models import fixture

DUMP = "team/project/acts"


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CHATS = [
    {"label": i % 2, "messages": [
        {"role": "user", "content": f"{WORDS[i % len(WORDS)]} sees the cat"},
        {"role": "assistant", "content": f"the dog likes {WORDS[3 * i % len(WORDS)]}"},
    ]}
    for i in range(24)
]  # fmt: skip


def save_speaker(folder: Path) -> None:
    """The tiny model with a head and a chat template."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    save_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}sees {{ m.content }} {% endfor %}finds"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).save_pretrained(folder)


def dump_files() -> dict[str, bytes]:
    """Two chunks of activations of 20 windows of 6 tokens, and the tokens."""
    x = np.random.default_rng(0).standard_normal((40, 6, 8)).astype(np.float32)
    words = [[WORDS[(i * t) % len(WORDS)] for t in range(6)] for i in range(40)]
    chunks = {
        f"resid_post.1.chunk_{i}.pt": _saved({"acts": torch.tensor(x[20 * i : 20 * i + 20])})
        for i in range(2)
    }
    return {**chunks, "all_token_ids.pt": _saved(words)}


def write_gguf(path: Path) -> None:
    """A Llama of two layers with random weights."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    model = LlamaModel(config)
    gguf_files.write(path, gguf_files.values_of(model), gguf_files.tensors_of(model))


def write_inputs(folder: Path, server: Server) -> None:
    """The outside files of the experiment below `folder`."""
    save_tiny_model(folder / "model")
    save_speaker(folder / "speaker")
    (folder / "chats.jsonl").write_text("".join(json.dumps(c) + "\n" for c in CHATS))
    write_gguf(folder / "tiny.gguf")
    for name in ("a", "b"):
        write_dataset(folder / f"{name}.csv")
        np.save(folder / f"{name}.npy", np.random.default_rng(0).standard_normal((160, 5)))
    fixture.write_data(folder / "fixture")
    synthetic.write(folder / "loras", per_class=8, broken=False)
    server.add_artifact(DUMP, dump_files())


def config(folder: Path) -> dict[str, Any]:
    """The config, as it is written to a file."""
    return {
        "experiment": "all",
        "cache_dir": str(folder / "cache"),
        "results_dir": str(folder / "results"),
        "datasets": [
            {"names": ["a", "b"], "path": str(folder / "{name}.csv")},
            {
                "name": "statements",
                "path": str(folder / "fixture/statements.json"),
                "text": "question",
                "contrastive": {},
            },
            {
                "name": "answered",
                "path": str(folder / "a.csv"),
                "sample": {"n": 40, "by": "label"},
                "generate": {"model": "speaker", "max_new_tokens": 6},
            },
            {"name": "chats", "path": str(folder / "chats.jsonl"), "messages": "messages"},
            {
                "name": "validation",
                "path": str(folder / "fixture/validation.json"),
                "text": "question",
                "label": "type",
                "positive": "testing",
            },
        ],
        "models": {
            "tiny": {"source": str(folder / "model"), "prepend_bos": True},
            "speaker": {"source": str(folder / "speaker")},
            "gguf": {"source": str(folder / "tiny.gguf")},
            "untrained": {
                "source": str(folder / "model"),
                "weights": "random",
                "prepend_bos": True,
            },
        },
        "activations": [
            {
                "model": "tiny",
                "minus": "untrained",
                "sites": ["resid_post.1"],
                "positions": ["mean"],
                "datasets": ["a"],
            },
            {
                "model": "gguf",
                "sites": ["resid_post.1"],
                "positions": ["last"],
                "datasets": ["a"],
            },
            {
                "model": "tiny",
                "sites": ["resid_post.1"],
                "positions": ["mean", "tokens"],
                "datasets": ["a", "b"],
            },
            {
                "model": "tiny",
                "sites": ["resid_post.1"],
                "positions": ["last"],
                "datasets": ["statements", "validation"],
            },
            {
                "model": "speaker",
                "sites": ["resid_post.1"],
                "positions": ["tokens", "span.answer"],
                "spans": {"answer": {"role": "assistant", "turn": -1}},
                "datasets": ["answered", "chats"],
            },
        ],
        "arrays": {"own": {"path": str(folder / "{dataset}.npy")}},
        "saes": {
            "small": {
                "model": "tiny",
                "site": "resid_post.1",
                "position": "mean",
                "train": {"width": 48, "k": 4, "epochs": 1, "datasets": ["b"]},
            }
        },
        "probes": [
            {
                "protocol": "saeprobes-0.4.2",
                "sources": ["tiny/*.mean", "own"],
                "methods": ["logreg"],
            },
            {"protocol": "saeprobes-0.4.2-fast", "sources": ["small"], "methods": ["ksparse_b"]},
            {"protocol": "lora-1", "sources": ["loras/*"], "methods": ["ridge"]},
            {
                "protocol": "contrastive-1",
                "datasets": ["statements"],
                "apply_to": ["validation"],
            },
        ],
        "dumps": {
            "acts": {
                "source": {"artifacts": [f"{DUMP}:latest"]},
                "lock": str(folder / "acts.json"),
                "model": "m",
                "dataset": "windows",
            }
        },
        "top_contexts": [{"sources": ["m/*"], "latents": 3, "k": 2}],
        "loras": {
            "loras": {
                "files": str(folder / "loras/files"),
                "labels": str(folder / "loras/labels.csv"),
                "representations": ["stats", "singular_values"],
            }
        },
    }


def resolved(folder: Path) -> dict[str, Any]:
    """The config, checked and complete; also written to `folder`/config.yaml."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder)))
    return configuration.resolve(config(folder))


def planned(resolved: dict[str, Any], asked: Iterable[str] = ()) -> plan.Plan:
    return experiment.plan(resolved, tuple(asked))


def make(resolved: dict[str, Any], asked: Iterable[str] = ()) -> plan.Plan:
    """Make what is asked for, or everything; returns the plan that was carried out."""
    texts = experiment.plan_texts(resolved)
    plan.take_over(texts)
    for batch in texts.in_order():
        experiment.run(batch, resolved, 1)
    made = planned(resolved, asked)
    if plan.take_over(made):
        made = planned(resolved, asked)
    for batch in made.in_order():
        experiment.run(batch, resolved, 1)
    return made
