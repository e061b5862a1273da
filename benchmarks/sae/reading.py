"""How long do the top 128 columns and a ranking take at width 2^20?

    python benchmarks/sae/reading.py [--rows 1000] [--l0 100]

CSR codes with log-normal firing rates, in memory; the median of 21 calls, CPU milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import norm

from actprobe.sae import rank
from actprobe.sae.latents import Latents

WIDTH = 1 << 20


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=1000)
    options.add_argument("--l0", type=float, default=100)
    o = options.parse_args()
    z = codes(o.rows, o.l0)
    y = np.arange(o.rows) % 2
    for rule in ("a", "b"):
        took = milliseconds(partial(rank, z, None, y, rule, 128))
        print(f"rank, rule {rule}, k 128: {took:.1f} ms")
    best = rank(z, None, y, "b", 128)
    print(f"top 128 columns of {o.rows} rows: {milliseconds(lambda: z.columns(best)):.1f} ms")


def codes(n: int, l0: float) -> Latents:
    rng = np.random.default_rng(0)
    p = 10 ** rng.standard_normal(WIDTH)
    for _ in range(50):
        p = np.minimum(p * l0 / p.sum(), 0.5)
    fires = [np.flatnonzero(rng.random(WIDTH, np.float32) < p) for _ in range(n)]
    latents = np.concatenate(fires).astype(np.int32)
    values = norm.isf(rng.random(len(latents)) * p[latents]).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum([len(f) for f in fires])])
    return Latents(values, latents, indptr, (n, WIDTH))


def milliseconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(21):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
