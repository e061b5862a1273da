"""The quickstart's activations on two cores: tokens per batch, and threads against jobs.

    python benchmarks/extraction/quickstart.py [--cache cache] [--repeats 3] [--datasets NAME ...]

All layers of all-MiniLM-L6-v2, position mean. Takes wheels and texts from a cache in which the
quickstart was run. Medians are printed as Markdown and written to `quickstart.csv`: wall and CPU
seconds of whole jobs (imports and loading included), and tokens per CPU second of the passes alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = (256, 512, 1024, 2048, 4096)
SHAPES = ((1, 1), (1, 2), (2, 1))  # jobs, threads of each


def job(cache: str, datasets: str, budget: str, jobs: str, threads: str, shard: str) -> None:
    """One job of the activations stage; prints CPU seconds, those after loading, and tokens."""
    from actprobe import config as configuration
    from actprobe import experiment, store
    from actprobe.models import load
    from actprobe.models.run import run

    raw = configuration.load_file(ROOT / "config" / "config.yaml")
    raw |= {"cache_dir": cache, "shards": {"activations": int(jobs)}}
    raw["models"]["minilm"] |= {"max_tokens_per_batch": int(budget), "device": "cpu"}
    if datasets:
        raw["datasets"][0]["names"] = datasets.split(",")
    config = configuration.resolve(raw)
    batch = experiment.plan(config, ("activations",)).of("activations")[int(shard)]
    load_model, loaded = load.load_model, []

    def watched(*args):
        model = load_model(*args)
        loaded.append(time.process_time())
        return model

    load.load_model = watched
    run(batch, config, int(threads))
    cpu = time.process_time()
    tokens = {t.item: store.read_header(t.path)["facts"]["n_tokens"] for t in batch.targets}
    print(json.dumps({"cpu_s": cpu, "passes_s": cpu - loaded[0], "tokens": sum(tokens.values())}))


def measure(cache: Path, datasets: str, budget: int, jobs: int, threads: int) -> dict[str, float]:
    """All jobs at once in a cache of their own; sums over them, and the wall time."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        for shared in ("wheels", "texts"):
            os.symlink((cache / shared).absolute(), f"{scratch}/{shared}")
        command = [sys.executable, __file__, scratch, datasets, budget, jobs, threads]
        begun = time.monotonic()
        children = [
            subprocess.Popen(
                [*map(str, command), str(shard)], env=environment, stdout=subprocess.PIPE, text=True
            )
            for shard in range(jobs)
        ]
        found = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
        wall = time.monotonic() - begun
    total = {k: sum(f[k] for f in found) for k in found[0]}
    return {"wall_s": wall, "cpu_s": total["cpu_s"],
            "tokens_per_cpu_s": total["tokens"] / total["passes_s"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--datasets", nargs="*", default=[])
    options = parser.parse_args()
    cases = [(b, *shape) for b in BUDGETS for shape in SHAPES]
    found: dict[tuple[int, int, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(options.repeats):
        for case in cases:
            found[case].append(measure(options.cache, ",".join(options.datasets), *case))
            print(case, found[case][-1], file=sys.stderr)
    rows = [
        {"tokens_per_batch": budget, "jobs": jobs, "threads": threads}
        | {k: f"{median(f[k] for f in fs):.4g}" for k in fs[0]}
        for (budget, jobs, threads), fs in found.items()
    ]
    print("|" + "|".join(rows[0]) + "|\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("|" + "|".join(map(str, row.values())) + "|")
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    job(*sys.argv[1:]) if len(sys.argv) > 6 and not sys.argv[1].startswith("-") else main()
