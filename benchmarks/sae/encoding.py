"""What does it cost to encode many datasets with one SAE, in three ways?

    python benchmarks/sae/encoding.py [--widths 16384 131072] [--datasets 20] [--rows 1000]
                                      [--d 2304] [--peer PYTHON] [--ways WAY …]

A JumpReLU SAE with random weights in SAELens format, L0 100 (log-normal firing rates), on normal
rows. Every way runs in a process of its own with one thread and ends with codes on disk:
  a       sae-lens, the SAE loaded anew for every dataset: encode in batches of 128, sparse COO .pt
  b       the same, the SAE loaded once
  ours    the latents stage over all datasets
  product the bare float32 product of the same kernel and tile shapes, and one read of the encoder
PYTHON is an interpreter that has sae-lens; without it a and b are left out. Ways may be named more
than once. What is printed is explained in ways.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WAYS = ["product", "ours", "b", "a"]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--widths", type=int, nargs="+", default=[16384, 131072])
    options.add_argument("--datasets", type=int, default=20)
    options.add_argument("--rows", type=int, default=1000)
    options.add_argument("--d", type=int, default=2304)
    options.add_argument("--l0", type=float, default=100)
    options.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options.add_argument("--peer", help="Python with sae-lens")
    o = options.parse_args()
    print(f"d {o.d}, {o.datasets} datasets x {o.rows} rows, L0 {o.l0:g}")
    for width in o.widths:
        with tempfile.TemporaryDirectory() as tmp:
            material(Path(tmp), width, o)
            for way in o.ways:
                if way in ("a", "b") and not o.peer:
                    continue
                found = measure(way, Path(tmp), o)
                print(f"{width:>8} {way:8} " + "  ".join(f"{k} {v}" for k, v in found.items()))
                sys.stdout.flush()


def material(folder: Path, width: int, o: argparse.Namespace) -> None:
    """The SAE at folder/sae, the rows at folder/x.npy, and planned targets at folder/todo.json."""
    import numpy as np
    from scipy.stats import norm

    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    import sae_tiny

    rng = np.random.default_rng(0)
    p = 10 ** rng.standard_normal(width)
    for _ in range(50):
        p = np.minimum(p * o.l0 / p.sum(), 0.5)
    w = rng.standard_normal((o.d, width), np.float32)
    w /= np.float32(o.d**0.5)
    weights = {
        "W_enc": w, "W_dec": w.T, "b_enc": np.zeros(width, np.float32),
        "b_dec": np.zeros(o.d, np.float32),
        "threshold": np.maximum(norm.isf(p), 0).astype(np.float32),
    }  # fmt: skip
    sae = sae_tiny.save_saelens(
        folder / "sae", weights, architecture="jumprelu", apply_b_dec_to_input=False, device="cpu"
    )
    x = rng.standard_normal((o.datasets, o.rows, o.d), np.float32)
    np.save(folder / "x.npy", x)
    xs = {f"d{i:02}": part for i, part in enumerate(x)}
    cfg = sae_tiny.config(folder, {"s": {"source": str(sae), "device": "cpu"}})
    planned = sae_tiny.targets(cfg, sae_tiny.activations(folder, xs))["latents"]
    todo = {"config": cfg, "targets": [vars(t) for t in planned]}
    (folder / "todo.json").write_text(json.dumps(todo))


def measure(way: str, folder: Path, o: argparse.Namespace) -> dict[str, str]:
    """Run one way in its own process."""
    python = o.peer if way in ("a", "b") else sys.executable
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    run = [python, str(HERE / "ways.py"), way, str(folder)]
    shutil.rmtree(folder / "latents", ignore_errors=True)
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"} | threads
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
