"""Caches as the evaluation-awareness scripts write them, and what imports them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actprobe import exchange as interchange
from actprobe.base import keys
from actprobe.cache import plan
from actprobe.imports.run import run as run_batch

PROMPT = "You must guess whether the following text comes from testing.\n\n{question}\n\nAnswer:"


def tensor(n: int, d: int = 4, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Random rows [n, d]."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pair_metadata(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """metadata.json of a contrastive cache."""
    return [
        {
            "idx": i,
            "question": PROMPT.format(question=r["question"]),
            "test_answer": r["positive"],
            "deploy_answer": r["negative"],
            "test_token_type": r["positive"][1],
            "deploy_token_type": r["negative"][1],
        }
        for i, r in enumerate(rows)
    ]


def row_metadata(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """metadata.json of a validation cache."""
    return [
        {"idx": i, "question": r["question"][:100] + "...", "type": r["type"]}
        for i, r in enumerate(rows)
    ]


def describe(folder: Path, metadata: list[dict[str, Any]], **info: Any) -> None:
    """Write metadata.json and layer_info.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    content = {"layers": [3], "num_examples": len(metadata), **info}
    (folder / "layer_info.json").write_text(json.dumps(content))


def save(folder: Path, layer: int, **tensors: torch.Tensor) -> None:
    """Write `layer_{L}/{name}.pt`; "__" in a name stands for a folder."""
    for name, value in tensors.items():
        path = folder / f"layer_{layer}" / f"{name.replace('__', '/')}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path)


def targets(config: dict[str, Any], texts: Sequence[plan.Target]) -> list[plan.Target]:
    """The imports targets of a config."""
    return interchange.targets(config, {"texts": list(texts)}, keys.DigestMemo(config["cache_dir"]))


def run(config: dict[str, Any], texts: Sequence[plan.Target]) -> list[plan.Target]:
    """Import what a config asks for; returns the targets."""
    found = targets(config, texts)
    planned = plan.make(config, found, [t.path for t in found])
    frozen = plan.freeze(planned, Path(config["cache_dir"]).parent / "plans")
    for batch in plan.thaw(frozen).batches:
        run_batch(batch, config, 1)
    return found


def values(t: torch.Tensor) -> np.ndarray:
    """float32 values [n, d]."""
    return t.float().reshape(-1, t.shape[-1]).numpy()
