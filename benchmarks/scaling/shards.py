"""What do shards cost? CPU seconds of the same extraction as 1, 2 and 4 jobs.

    python benchmarks/scaling/shards.py [--cache cache] [--datasets NAME ...]

Layers of all-MiniLM-L6-v2, position mean, on datasets of the quickstart; wheels and texts are taken
from a cache in which it was run. The jobs run one after the other, on one thread: on machines of
their own they would take as long as the longest of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ["41_truthqa_tf", "87_glue_cola", "95_toxic_is", "96_spam_is",
            "129_arith_mc_A", "149_twt_emotion_happiness"]  # fmt: skip


def job(cache: str, datasets: str, shards: str, shard: str) -> None:
    """One job of the activations stage; prints its CPU seconds and those until the model is there."""
    from actprobe import config as configuration
    from actprobe.experiment import targets as experiment
    from actprobe.models import load
    from actprobe.models.run import run

    raw = configuration.load_file(ROOT / "config" / "examples" / "sentence-encoder.yaml")
    raw |= {"cache_dir": cache, "shards": {"activations": int(shards)}}
    raw |= {"saes": {}, "probes": [], "activations": raw["activations"][:1]}
    raw["models"]["minilm"]["device"] = "cpu"
    raw["datasets"][0]["names"] = datasets.split(",")
    config = configuration.resolve(raw)
    batch = experiment.plan(config, ("activations",)).of("activations")[int(shard)]
    load_model, loaded = load.load_model, []

    def watched(*args):
        model = load_model(*args)
        loaded.append(time.process_time())
        return model

    load.load_model = watched
    run(batch, config, 1)
    print(json.dumps({"cpu": time.process_time(), "until_loaded": loaded}))


def measure(cache: Path, datasets: list[str], shards: int) -> list[dict]:
    """Every job of `shards`, each on an empty cache of activations, so that all see one plan."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = []
    for shard in range(shards):
        with tempfile.TemporaryDirectory() as scratch:
            for shared in ("wheels", "texts"):
                (Path(scratch) / shared).symlink_to((cache / shared).resolve())
            what = [scratch, ",".join(datasets), str(shards), str(shard)]
            command = [sys.executable, __file__, "job", *what]
            p = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.append(json.loads(p.stdout.splitlines()[-1]))
    return found


def main() -> None:
    """Print the table that stands in results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    options = parser.parse_args()
    print("| shards | model loads | CPU s, all jobs | longest job | ideal / longest |")
    print("|---|---|---|---|---|")
    single = 0.0
    for shards in (1, 2, 4):
        found = measure(options.cache, options.datasets, shards)
        cpu = [f["cpu"] for f in found]
        single = single or sum(cpu)
        loads = sum(len(f["until_loaded"]) for f in found)
        share = single / shards / max(cpu)
        print(f"| {shards} | {loads} | {sum(cpu):.1f} | {max(cpu):.1f} | {share:.2f} |", flush=True)
    started = [f["until_loaded"][0] for f in found]
    print(f"\nCPU s until the model is there: {min(started):.1f} to {max(started):.1f}")


if __name__ == "__main__":
    job(*sys.argv[2:]) if sys.argv[1:2] == ["job"] else main()
