"""Inputs of the probe benchmark, and the functions of the sae-probes package beside ours."""

from __future__ import annotations

import ast
import importlib.util
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from actprobe import sae

N_TRAIN, N_TEST = 1024, 400


def package(wheel: Path) -> tuple[ModuleType, dict[str, Callable]]:
    """The wheel's utils_training module, and the ranking functions of its run_sae_evals.

    Importing the package itself would decompress all of its data sets.
    """
    folder = Path(tempfile.mkdtemp())
    with zipfile.ZipFile(wheel) as z:
        for name in ("utils_training.py", "run_sae_evals.py"):
            (folder / name).write_bytes(z.read(f"sae_probes/{name}"))
    spec = importlib.util.spec_from_file_location("utils_training", folder / "utils_training.py")
    assert spec and spec.loader
    training = importlib.util.module_from_spec(spec)
    sys.modules["utils_training"] = training
    spec.loader.exec_module(training)
    tree = ast.parse((folder / "run_sae_evals.py").read_text())
    wanted = ("get_sorted_indices", "mean_act_normalization")
    body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
    ranking: dict[str, Any] = {"torch": torch, "Callable": Callable}
    exec(compile(ast.Module(body, []), "run_sae_evals.py", "exec"), ranking)
    return training, ranking


def sparse(seed: int, width: int = 8000) -> tuple[sae.Latents, np.ndarray]:
    """Latents like those of an SAE, and alternating labels: one in twenty tells the classes apart.

    Log-normal firing rates and scales, exponential values.
    """
    n = N_TRAIN + N_TEST
    rng = np.random.RandomState(seed)
    y = np.arange(n) % 2
    rate = np.minimum(10 ** rng.normal(-2.2, 0.8, width), 0.9)
    effect = np.where(rng.rand(width) < 0.05, rng.normal(0, 1.5, width), 0)
    odds = rate / (1 - rate) * np.exp(np.outer(y - 0.5, effect))
    fires = rng.rand(n, width) < odds / (1 + odds)
    scale = 10 ** rng.normal(0.7, 0.35, width)
    csr = csr_array((fires * scale * (0.5 + rng.exponential(1, (n, width)))).astype(np.float32))
    indices, indptr = csr.indices.astype(np.int32), csr.indptr.astype(np.int64)
    return sae.Latents(csr.data, indices, indptr, csr.shape), y


def dense(seed: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations with a falling spectrum, offsets and three outlying columns; noisy labels."""
    n = N_TRAIN + N_TEST
    rng = np.random.RandomState(seed)
    z = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.6
    signal = z @ rng.standard_normal(d)
    y = (signal / signal.std() + rng.standard_normal(n) > 0).astype(int)
    x = z @ (rng.standard_normal((d, d)) / np.sqrt(d)) * 40 + rng.normal(0, 2, d)
    x[:, :3] += [300, -150, 80]
    return x.astype(np.float32), y
