"""What keeping fits costs: CPU time and bytes of the quickstart's fits, with and without `keep`.

    python benchmarks/probes/kept.py [DATASETS]

Numbers are made up, in the quickstart's shape: eight datasets of 300 rows, eight sources of 576 numbers,
an SAE of 2,048 latents. One process, one thread. The two ways take turns, so that other work on the
machine touches both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/unit"))

from probes_inputs import Cache, as_latents, data
from threadpoolctl import threadpool_limits

from actprobe import probes
from actprobe.cache import store

N, D, LATENTS = 300, 576, 2048


def filled(folder: Path, datasets: list[str], sites: list[str]) -> Cache:
    """A cache with the quickstart's datasets and sources."""
    cache = Cache(folder)
    for n, name in enumerate(datasets):
        y = np.arange(N) % 2
        cache.texts(name, y)
        for m, site in enumerate(sites):
            for position in ("last", "mean"):
                x, _ = data(N, D, seed=100 * n + 2 * m + (position == "last"))
                cache.activations(name, x, "smollm2", site, position)
        codes = np.random.default_rng(n).exponential(size=(N, LATENTS))
        codes[np.random.default_rng(n).random((N, LATENTS)) > 32 / LATENTS] = 0
        cache.latents(name, as_latents(codes), "smollm2-2k")
    return cache


def made(cache: Cache, entries: list[dict], keep: list[str] | None) -> tuple[float, int, int]:
    """CPU seconds, bytes of the files and rows of all fits."""
    config = cache.config(*({**e, "keep": keep} for e in entries))
    planned = cache.plan(config)
    begin = time.process_time()
    for batch in planned.batches:
        probes.run(batch, config, 1)
    seconds = time.process_time() - begin
    size = sum(Path(p).stat().st_size for p in planned.wanted)
    return seconds, size, sum(len(store.read_table(p, ["seed"])) for p in planned.wanted)


def main() -> None:
    quickstart = yaml.safe_load(Path("config/config.yaml").read_text())
    names = quickstart["datasets"][0]["names"][: int(sys.argv[1]) if len(sys.argv) > 1 else None]
    sites = quickstart["activations"][0]["sites"]
    ways: dict[str, list[str] | None] = {"rows only": [], "kept": None}
    seconds, size, rows = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0), 0
    with threadpool_limits(1):
        for name in names:
            for way in ways:
                with tempfile.TemporaryDirectory() as folder:
                    cache = filled(Path(folder), [name], sites)
                    took, held, n = made(cache, quickstart["probes"], ways[way])
                seconds[way] += took
                size[way] += held
                rows += n if way == "kept" else 0
    for way in ways:
        print(f"{way}: {seconds[way]:.1f} CPU s, {size[way] / 1e6:.1f} MB, {rows} fits")
    print(f"more: {seconds['kept'] / seconds['rows only'] - 1:+.1%} CPU time")


if __name__ == "__main__":
    main()
