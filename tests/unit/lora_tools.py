"""What the LoRA tests share: configs, running the stages in this process, small LoRA files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from actprobe import config, keys, plan
from actprobe.lora import collection, features, index, primitives, probe, targets

RUN = {
    "lora_index": index.run,
    "lora_primitives": primitives.run,
    "features": features.run,
    "lora_probes": probe.run,
}
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


def resolved(folder: Path, loras: dict, lora_probes: dict | None = None, **top: Any) -> dict:
    """A resolved config of the LoRA sections with its cache in `folder`."""
    filled = {
        name: config._filled(value, config.schema(name))
        for name, value in (("loras", loras), ("lora_probes", lora_probes or {}))
    }
    return {
        "experiment": "test",
        "cache_dir": str(folder / "cache"),
        "results_dir": str(folder / "results"),
        "on_bad_dataset": "stop",
        "max_memory": 10**9,
        "shards": {},
        **filled,
        **top,
    }


def members(folder: Path, **options: Any) -> list[collection.Member]:
    """The members of a collection of this folder."""
    return collection.members("c", {"files": str(folder), **options})


def planned(cfg: dict) -> plan.Plan:
    """The plan of the LoRA targets that no other target reads."""
    memo = keys.DigestMemo(cfg["cache_dir"])
    found = targets(cfg, {}, memo)
    memo.save()
    read = {p for t in found for p in t.inputs}
    return plan.make(cfg, found, [t.path for t in found if t.path not in read])


def to_make(cfg: dict) -> dict[str, int]:
    """How many targets of each stage are pending."""
    made = planned(cfg)
    stages = [made.targets[p].stage for p in made.pending]
    return {s: stages.count(s) for s in RUN if s in stages}


def run(cfg: dict) -> plan.Plan:
    """Make everything that is pending; returns the plan that was followed."""
    made = planned(cfg)
    plan.take_over(made)
    for stage, make in RUN.items():
        for batch in made.of(stage):
            make(batch, cfg, 1)
    return made


def path_of(made: plan.Plan, name: str) -> str:
    """Path of the one target of this name."""
    (found,) = [t.path for t in made.targets.values() if t.name == name]
    return found


def write_lora(path: Path, seed: int = 0, rank: int = 2, modules: int = 2, **more: Any) -> Path:
    """A small diffusers file; `more` are further tensors by name with dots as in the file."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for m in range(modules):
        stem = f"unet.{BLOCK}.attn{m % 2 + 1}.to_{'qkv'[m // 2 % 3]}"
        tensors[f"{stem}.lora.down.weight"] = rng.standard_normal((rank, 12)).astype(np.float32)
        tensors[f"{stem}.lora.up.weight"] = rng.standard_normal((10, rank)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors | more, path)
    return path
