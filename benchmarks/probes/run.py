"""CPU seconds of probes, ours beside the functions of the sae-probes package, on the same inputs.

    ACTPROBE_WHEELS=FOLDER python benchmarks/probes/run.py [--glum PYTHON] [PART ...]

The folder holds sae_probes-0.4.2-*.whl (or give --wheel FILE). Parts: ksparse, dense, xgboost,
workers (default: all). PYTHON is one in which glum is installed, the exact optimum of the fast
preset's problems. One thread for every math library. Prints Markdown.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import inputs
import numpy as np
import torch
from inputs import N_TRAIN

from actprobe import probes, sae
from actprobe.probes import methods, metrics, protocol, search, validation

HERE = Path(__file__).resolve().parent
EXACT, FAST = "saeprobes-0.4.2", "saeprobes-0.4.2-fast"
SEED = 42
KS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = function()
    return time.process_time() - begun, result


def table(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def line(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def ours(name: str, method: str, X: np.ndarray, y: np.ndarray, **changes: Any) -> search.Fitted:
    """A fit by our protocol `name`, with its interval as in every run."""
    recipe = protocol.load(name)
    folds = validation.folds(y[:N_TRAIN], recipe["validation"], SEED)
    fitted = search.search(
        X[:N_TRAIN].astype(float), y[:N_TRAIN], X[N_TRAIN:].astype(float),
        recipe["methods"][method] | changes, folds, recipe["validation"], SEED,
    )  # fmt: skip
    probes.auc_interval(y[N_TRAIN:], fitted.scores)
    return fitted


def auc(fitted: search.Fitted, y: np.ndarray) -> float:
    return metrics.auc(y[N_TRAIN:], fitted.scores)


def theirs(find: Callable, X: torch.Tensor, y: np.ndarray, **options: Any) -> float:
    """Test AUC by a function of the package, given float32 tensors as its own callers do."""
    labels = torch.tensor(y)
    train, test = (X[:N_TRAIN], labels[:N_TRAIN]), (X[N_TRAIN:], labels[N_TRAIN:])
    return find(*train, *test, seed=SEED, **options).metrics.test_auc


def ksparse(training: ModuleType, ranking: dict[str, Callable], glum: str | None) -> None:
    table("seed", "k", "package", "exact preset", "AUC difference", "fast preset", "package / fast",
          "fast − exact optimum", "same C")  # fmt: skip
    for seed in (0, 1):
        latents, y = inputs.sparse(seed)
        codes = torch.from_numpy(latents.to_scipy().toarray())
        t_rank, order = timed(
            lambda codes=codes, y=y: ranking["get_sorted_indices"](
                codes[:N_TRAIN], torch.tensor(y[:N_TRAIN]), ranking["mean_act_normalization"]
            )
        )
        t_best, X = timed(
            lambda latents=latents, y=y: latents.columns(
                sae.rank(latents, np.arange(N_TRAIN), y[:N_TRAIN], "b", KS[-1])
            )
        )
        optimum = dict.fromkeys(KS) if glum is None else exact_optimum(glum, X, y)
        total = np.array([t_rank, t_best, t_best])
        for k in KS:
            # Ties of rule b are ordered by torch as it happens: the package gets our columns.
            same = codes[:, order[:k]] if k <= 64 else torch.from_numpy(X[:, :k].astype("f4"))
            t0, a0 = timed(
                lambda same=same, y=y: theirs(training.find_best_reg, same, y, penalty="l1")
            )
            t1, exact = timed(lambda X=X, y=y, k=k: ours(EXACT, "ksparse_b", X[:, :k], y))
            t2, fast = timed(lambda X=X, y=y, k=k: ours(FAST, "ksparse_b", X[:, :k], y))
            total += t0, t1, t2
            best = optimum[k]
            gap = "" if best is None else f"{auc(fast, y) - best[1]:+.1e}"
            C = "" if best is None else "yes" if np.isclose(best[0], fast.params["C"]) else "no"
            line(seed, k, f"{t0:.2f}", f"{t1:.2f}", f"{auc(exact, y) - a0:+.0e}", f"{t2:.2f}",
                 f"{t0 / t2:.0f}", gap, C)  # fmt: skip
        line(seed, "all, with ranking", *(f"{t:.1f}" for t in total[:2]), "", f"{total[2]:.2f}",
             f"{total[0] / total[2]:.0f}", "", "")  # fmt: skip


def exact_optimum(python: str, X: np.ndarray, y: np.ndarray) -> dict[int, tuple[float, float]]:
    """k -> chosen C and test AUC by glum."""
    recipe = protocol.load(FAST)
    [(fit, _)] = validation.folds(y[:N_TRAIN], recipe["validation"], SEED)
    Cs = [p["C"] for p in methods.grid(recipe["methods"]["ksparse_b"], N_TRAIN, 1, len(fit), SEED)]
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / "problem.npz"
        np.savez(problem, X=X, y=y, Cs=Cs, n_train=N_TRAIN, fit=len(fit), ks=KS)
        out = subprocess.run(
            [python, HERE / "exact.py", problem], capture_output=True, text=True, check=True
        )
    return {k: (C, a) for k, C, a in json.loads(out.stdout)}


def dense(training: ModuleType) -> None:
    table("seed", "d", "package", "exact preset", "AUC difference", "fast preset (rotated)",
          "package / fast", "AUC difference")  # fmt: skip
    for seed in (0, 1, 2):
        x, y = inputs.dense(seed, 3584)
        X = torch.from_numpy(x)
        t0, a0 = timed(lambda X=X, y=y: theirs(training.find_best_reg, X, y))
        t1, exact = timed(lambda x=x, y=y: ours(EXACT, "logreg", x, y))
        t2, fast = timed(lambda x=x, y=y: ours(FAST, "logreg", x, y))
        line(seed, 3584, f"{t0:.2f}", f"{t1:.2f}", f"{auc(exact, y) - a0:+.0e}", f"{t2:.2f}",
             f"{t0 / t2:.1f}", f"{auc(fast, y) - a0:+.1e}")  # fmt: skip


def xgboost(training: ModuleType) -> None:
    table("d", "package", "exact preset", "AUC difference", "max_bin 64", "AUC difference")
    x, y = inputs.dense(0, 384)
    t0, a0 = timed(lambda: theirs(training.find_best_xgboost, torch.from_numpy(x), y))
    t1, exact = timed(lambda: ours(EXACT, "xgboost", x, y))
    t2, coarse = timed(lambda: ours(EXACT, "xgboost", x, y, solver={"max_bin": 64}))
    line(384, f"{t0:.1f}", f"{t1:.1f}", f"{auc(exact, y) - a0:+.0e}", f"{t2:.1f}",
         f"{auc(coarse, y) - a0:+.1e}")  # fmt: skip


def workers() -> None:
    """Sixteen data sets through the stage, files included, by one and by two worker processes."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "unit"))
    from probes_inputs import Cache

    table("workers", "wall s", "CPU s")
    begun = {}
    for n in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(Path(folder))
            for i in range(16):
                latents, y = inputs.sparse(i, width=2000)
                cache.texts(f"d{i}", y)
                cache.latents(f"d{i}", latents)
            entry = {"protocol": EXACT, "methods": ["ksparse_b"], "settings": ["imbalance"]}
            config = cache.config({**entry, "datasets": ["d?", "d1?"]})
            config["probes"][0]["protocol"] = short(Path(folder))
            [batch] = cache.plan(config).batches
            wall, cpu = time.monotonic(), cpu_seconds()
            probes.run(batch, config, n)
            begun[n] = time.monotonic() - wall, cpu_seconds() - cpu
            line(n, *(f"{s:.1f}" for s in begun[n]))
    line("1 / 2", *(f"{a / b:.2f}" for a, b in zip(*begun.values(), strict=True)))


def short(folder: Path) -> str:
    """The exact preset with k = 16 and 64 and three class ratios, to spend a minute and no more."""
    own = folder / "short.yaml"
    own.write_text(
        f"name: short\ndescription: shortened\nextends: {EXACT}\n"
        "settings: {imbalance: {values: [0.3, 0.5, 0.7], ks: [16, 64]}}\n"
    )
    return str(own)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["ksparse", "dense", "xgboost", "workers"])
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--glum", metavar="PYTHON")
    args = parser.parse_args()
    folder = Path(os.environ.get("ACTPROBE_WHEELS", "."))
    wheel = args.wheel or next(folder.glob("sae_probes-0.4.2-*.whl"))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    training, ranking = inputs.package(wheel)
    for part in args.parts:
        match part:
            case "ksparse":
                ksparse(training, ranking, args.glum)
            case "dense":
                dense(training)
            case "xgboost":
                xgboost(training)
            case "workers":
                workers()
            case _:
                parser.error(f"unknown part {part!r}")


if __name__ == "__main__":
    main()
