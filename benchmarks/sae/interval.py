"""Does the interval of the variance explained cover what it says?

    python benchmarks/sae/interval.py [--times 1000]

Rows with log-normal norms and errors, tokens of one text alike or not; the number of all rows is known.
Prints how often the 95 % interval of the sampled rows covers it, and its mean width.
"""

from __future__ import annotations

import argparse

import numpy as np

from actprobe.sae.quality import Sampled, sample

CASES = [
    (n, length, spread) for n in (4000, 100_000) for length in (1, 20) for spread in (0.3, 0.5, 0.8)
]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--times", type=int, default=1000)
    times = options.parse_args().times
    print("rows     text  spread  covered  width")
    for n, length, spread in CASES:
        rng = np.random.default_rng(0)
        chosen, text = sample(n), np.arange(n) // length
        hits, width = 0, 0.0
        for _ in range(times):
            size, worse = rng.lognormal(0, (spread, 0.3), (n // length, 2)).T[:, text]
            x = (rng.standard_normal((n, 4)) * size[:, None]).astype(np.float32)
            error = (x**2).sum(1) * 0.3 * worse * rng.lognormal(0, 0.5, n)
            part = Sampled(x[chosen], n)
            part.error[:] = error[chosen]
            found = part.facts()
            low, high = found["variance_explained_low"], found["variance_explained_high"]
            truth = 1 - error.sum() / ((x - x.mean(0)) ** 2).sum()
            hits += low <= truth <= high
            width += (high - low) / times
        print(f"{n:>7}  {length:>4}  {spread:>6}  {hits / times:>7.3f}  {width:.3f}")


if __name__ == "__main__":
    main()
