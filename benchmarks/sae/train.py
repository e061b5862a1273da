"""How long does training an SAE take on the CPU?

    python benchmarks/sae/train.py [--width 16384] [--d 384] [--k 32] [--tokens 200000]

One epoch over synthetic tokens: each is the sum of 16 of 8 d random directions, and noise. Set
OMP_NUM_THREADS to choose the threads.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from actprobe.config.saes import Training
from actprobe.sae import training
from actprobe.sae.checkpoint import Checkpoint


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--width", type=int, default=16384)
    options.add_argument("--d", type=int, default=384)
    options.add_argument("--k", type=int, default=32)
    options.add_argument("--tokens", type=int, default=200_000)
    o = options.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    settings = Training(width=o.width, k=o.k, epochs=1)
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((8 * o.d, o.d)).astype(np.float32)

    def batches() -> Iterator[np.ndarray]:
        while True:
            yield tokens(settings["batch_size"])

    def tokens(n: int) -> np.ndarray:
        parts = rng.integers(0, len(directions), (n, 16))
        x = np.einsum(
            "nk,nkd->nd", rng.uniform(0.5, 2, (n, 16)).astype(np.float32), directions[parts]
        )
        return x + rng.standard_normal(x.shape, np.float32)

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "part", "0" * 64)
        used = time.process_time()
        found = training.train(
            batches(), tokens(16384), tokens(4096), o.tokens, settings, checkpoint
        )
    cpu = time.process_time() - used
    seen, _, fvu, dead = found.curve[-1]
    print(
        f"{o.width} latents of width {o.d}, k {o.k}: {seen:.0f} tokens, {cpu:.0f} CPU s; "
        f"FVU of held-out tokens {fvu:.3f}, {dead} dead"
    )


if __name__ == "__main__":
    main()
