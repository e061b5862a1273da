"""Models in small GGUF files, run through both stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf_files as files
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, quants
from models_tiny import make_config, model_entry, save_model, write_texts

from actprobe import models as room
from actprobe.base import keys
from actprobe.cache import plan
from actprobe.cache.plan import Target
from actprobe.experiment import targets as experiment
from actprobe.models import gguf as stage


def load(folder: Path) -> Any:
    """The model in `folder`/model, which is made if it is not there."""
    if not (folder / "model").exists():
        save_model("llama", folder / "model")
    return transformers.AutoModel.from_pretrained(folder / "model")


def tiny(folder: Path, **changes: Any) -> Path:
    """A GGUF file `tiny.gguf` of that model."""
    model = load(folder)
    return files.write(
        folder / "tiny.gguf", files.values_of(model, **changes), files.tensors_of(model)
    )


def rounded(folder: Path, into: Path, kind: GGMLQuantizationType) -> Path:
    """A copy of a model whose matrices are what is left of them in a type."""
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1 and not p.shape[-1] % 32:
                p.copy_(torch.from_numpy(quants.dequantize(quants.quantize(p.numpy(), kind), kind)))
    model.save_pretrained(into)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(into)
    return into


def entry(source: Any, **changes: Any) -> dict[str, Any]:
    """A model of the config with this source."""
    return {
        **model_entry("x", **changes),
        "source": source if isinstance(source, list) else str(source),
    }


def targets(
    config: Mapping[str, Any], *texts: Target, wheels: Iterable[Target] = ()
) -> list[Target]:
    """Weights and activations that a config asks for."""
    memo = keys.DigestMemo(config["cache_dir"])
    known = {"texts": list(texts), "wheels": list(wheels)}
    return [*stage.targets(config, known, memo), *room.targets(config, known, memo)]


def run(config: dict[str, Any], *texts: Target, wheels: Iterable[Target] = ()) -> list[Target]:
    """Make what is missing; returns the targets of both stages."""
    found = targets(config, *texts, wheels=wheels)
    made = plan.make(config, [*wheels, *found], [t.path for t in found])
    for batch in made.in_order():
        experiment.run(batch, config, 1)
    return found


WANTED = {"sites": ["embed", "resid_post.0", "resid_post.3"], "positions": ["last", "mean"]}


def activations(
    folder: Path, source: Any, wanted: dict[str, Any] = WANTED, **changes: Any
) -> dict[str, np.ndarray]:
    """The activations of `WANTED` by site and position, for a model at this source."""
    config = make_config(folder / "cache", entry(source, **changes), wanted)
    found = run(
        config, write_texts(folder / "cache", texts=["ab 12", "The quick brown fox", "½ né"])
    )
    return {
        f"{t.args.site}.{t.args.position}": room.load_activations(t.path)
        for t in found
        if t.stage == "activations"
    }
