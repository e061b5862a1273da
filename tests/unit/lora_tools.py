"""What the LoRA tests share: configs, running the stages in this process, small LoRA files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from actprobe import config, lora, results
from actprobe.base import keys
from actprobe.cache import plan, store
from actprobe.lora import collection, features, index, primitives
from actprobe.probes import batch as probes_stage
from actprobe.probes import fit, fits, protocol, search
from actprobe.probes import targets as probe_targets
from actprobe.probes.feature_targets import asked
from actprobe.probes.kinds import kind_of_classes
from actprobe.probes.sources import labelled
from actprobe.probes.sources.features import Features
from actprobe.results.features import of_features
from actprobe.results.rows import Collections

RUN = {
    "lora_index": index.run,
    "lora_primitives": primitives.run,
    "features": features.run,
    "probes": probes_stage.run,
}
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


def resolved(folder: Path, loras: dict, probes: list | None = None, **top: Any) -> config.Config:
    """A resolved config of collections and their probes, with its cache in `folder`.

    probes: entries of the config, by lora-1 where they name no protocol.
    """
    probes = [{"protocol": "lora-1", **entry} for entry in probes or []]
    return config.resolve(
        {
            "experiment": "test",
            "cache_dir": str(folder / "cache"),
            "results_dir": str(folder / "results"),
            "max_memory": 10**9,
            "threads": {"probes": 1},
            "loras": loras,
            "probes": probes,
            **top,
        }
    )


def members(folder: Path, **options: Any) -> list[collection.Member]:
    """The members of a collection of this folder."""
    return collection.members("c", {"files": str(folder), **options})


def planned(cfg: dict) -> plan.Plan:
    """The plan of the LoRA targets that no other target reads."""
    memo = keys.DigestMemo(cfg["cache_dir"])
    collections = lora.collections(cfg, memo)
    found: list[Any] = lora.targets(collections, asked(cfg))
    found += probe_targets(cfg, {}, memo, collections)
    found += [c.index for c in collections.values()]
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
    frozen = plan.thaw(plan.freeze(made, Path(cfg["cache_dir"]).parent / "plans"))
    for stage, make in RUN.items():
        for batch in frozen.of(stage):
            make(batch, cfg, 1)
    return made


def path_of(made: plan.Plan, name: str) -> str:
    """Path of the one target of this name."""
    (found,) = [t.path for t in made.targets.values() if t.name == name]
    return found


def rows_of(made: plan.Plan, source: str, columns: str = "*", method: str = "ridge") -> list[dict]:
    """The rows of the one target on this source, subset of columns and method."""
    (found,) = [
        t.path
        for t in made.targets.values()
        if t.stage == "probes"
        and (t.args["source"], t.args["columns_named"], t.spec["method"])
        == (source, columns, method)
    ]
    return store.read_table(found).to_pylist()


def make_results(cfg: dict, made: plan.Plan) -> dict[str, pd.DataFrame]:
    """Write the tables of what was made; returns those of features by name."""
    refused = lora.left_out(made.paths("lora_index"), lora.telling(made.paths("features")))
    read = Collections([], made.paths("features"))
    results.make_tables(
        cfg,
        made.paths("probes"),
        [],
        refused=refused,
        collections=read,
        rules=results.threshold_rules(made),
    )
    return results.read_tables(cfg).others


def runs(made: plan.Plan) -> pd.DataFrame:
    """The rows of all probes as the table of results has them."""
    return of_features(results.collect(made.paths("probes"), "test")[0])


def task(
    x: np.ndarray, y: np.ndarray, how: dict, n: int, seed: int = 0, select: str = "acc"
) -> search.Task:
    """Fits on the first n rows, validated and tested on the others."""
    classes = int(y.max()) + 1
    return search.Task(
        x[:n], y[:n], x[n:], how, [], "split", seed, kind_of_classes(range(classes)), classes,
        X_validation=x[n:], y_validation=y[n:], select=select,
    )  # fmt: skip


def probed(x: np.ndarray, y: np.ndarray, method: str = "ridge", seeds: int = 5) -> pd.DataFrame:
    """Rows of probes of features x [n, p] by lora-1."""
    n, p = x.shape
    ids = np.array([f"l{i}" for i in range(n)], object)
    found = Features(x.astype("f4"), np.zeros(p, int), ["m"], np.ones((n, 1), bool), ids,
                     np.zeros(p, bool))  # fmt: skip
    said = [{"label": f"c{c:04d}"} for c in y]
    labels = labelled._labels(np.arange(n), ids, said, dict(zip(ids, ids, strict=True)), n)
    recipe = protocol.recipe(protocol.load("lora-1"), "normal", method)
    place = {"protocol": "lora-1", "setting": "normal", "dataset": "toy", "label": "",
             "metric": "acc", "source": "toy/stats", "columns": "*", "site": "", "method": method,
             "condition": "", "kind": labels.kind}  # fmt: skip
    of = fits.Source(labels, found)
    rows = fit._task_rows(of, None, recipe | {"seeds": range(seeds)}, place, "")
    return results.tidy(pd.DataFrame(rows))


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
