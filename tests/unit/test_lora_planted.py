"""Five collections with a known truth, from files to the page: what is planted is what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lora_tools as tools
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from actprobe.report.features import headline
from actprobe.results.features import representation

N, MODULES, D = 120, ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v"), 24
Factors = dict[str, tuple[np.ndarray, np.ndarray]]  # module -> B, A


def _noise(rng: np.random.Generator, rank: int = 2) -> Factors:
    return {m: (0.05 * rng.normal(size=(D, rank)), rng.normal(size=(rank, D))) for m in MODULES}


def _with_direction(rng: np.random.Generator, label: int, modules: tuple[str, ...]) -> Factors:
    """A class writes to an output direction of its own; norms tell nothing."""
    found = _noise(rng)
    for m in modules:
        b, a = found[m]
        direction = np.random.default_rng([label, MODULES.index(m)]).normal(size=D)
        step = np.outer(direction, rng.normal(size=b.shape[1]))
        mixed = b + 0.15 * step
        found[m] = mixed * np.linalg.norm(b) / np.linalg.norm(mixed), a
    return found


def _plain(rng: np.random.Generator, label: int) -> Factors:
    return _noise(rng)


def _by_recipe(rng: np.random.Generator, label: int) -> Factors:
    return _noise(rng, rank=int(rng.choice([1, 4] if label else [2, 3])))


def _subspace(rng: np.random.Generator, label: int) -> Factors:
    return _with_direction(rng, label, MODULES)


def _by_norm(rng: np.random.Generator, label: int) -> Factors:
    size = np.exp(0.1 * rng.normal()) * (1.5 if label else 1.0)
    return {m: (size * b, a) for m, (b, a) in _noise(rng).items()}


def _one_module(rng: np.random.Generator, label: int) -> Factors:
    return _with_direction(rng, label, MODULES[2:3])


def _told(folder: Path, draw: Callable[[np.random.Generator, int], Factors]) -> tuple:
    """Headline, choices, summary and layers of a collection of this kind."""
    rows = ["id,label"]
    for i in range(N):
        tensors = {}
        for m, (b, a) in draw(np.random.default_rng(i), i % 2).items():
            stem = f"unet.{tools.BLOCK}.{m}.lora"
            tensors[f"{stem}.down.weight"] = a.astype("f4")
            tensors[f"{stem}.up.weight"] = b.astype("f4")
        (folder / "f").mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "f" / f"l{i:03d}.safetensors")
        rows.append(f"l{i:03d},{'ab'[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    loras = {"c": {"files": str(folder / "f"), "labels": str(folder / "labels.csv"),
                   "representations": ["singular_values", "left_projector", "stats"]}}  # fmt: skip
    probes = [
        {"sources": ["c/*"], "methods": ["ridge"]},
        {"sources": ["c/left_projector"], "methods": ["ridge"], "each_column_group": "module"},
    ]
    cfg = tools.resolved(folder, loras, probes)
    tables = tools.make_results(cfg, tools.run(cfg))
    summary, choices = tables["representations"], tables["choices"]
    lines = " ".join(headline(tables))
    ridge = summary[summary["method"] == "ridge"]
    means = ridge.set_index(representation(ridge))["test_score"]
    return lines, choices.iloc[0], means, summary["recipe_only"].max(), tables["modules"]


def _modules_above_chance(layers: pd.DataFrame) -> set[str]:
    rows = layers[
        (representation(layers) == "left_projector") & (layers["ci_low"] > layers["chance"])
    ]
    return {
        s.partition("blocks_0_")[2].rpartition("transformer_blocks_0_")[2] for s in rows["site"]
    }


@pytest.mark.parametrize("kind", ["nothing", "recipe", "subspace", "norm", "one module"])
def test_what_is_planted_is_what_is_told(tmp_path: Path, kind: str) -> None:
    draw = {"nothing": _plain, "recipe": _by_recipe, "subspace": _subspace, "norm": _by_norm,
            "one module": _one_module}[kind]  # fmt: skip
    lines, choice, means, recipe, layers = _told(tmp_path, draw)
    leak, above = "gives its labels away" in lines, choice["ci_low"] > choice["chance"]
    found = _modules_above_chance(layers)
    if kind == "nothing":
        assert not above and not leak and not found
    elif kind == "recipe":
        assert leak and recipe > 0.95
    elif kind == "subspace":
        assert above and not leak and means["left_projector"] > 0.9
        assert means["norm_only"] < 0.65 and len(found) == len(MODULES)
    elif kind == "norm":
        assert above and not leak and means["norm_only"] > 0.9
        assert means["left_projector"] < 0.65 and not found
    else:
        assert above and not leak and found == {"attn2_to_q"}
        assert means["norm_only"] < 0.65
