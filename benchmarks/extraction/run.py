"""Activation extraction side by side: CPU seconds on one thread, and memory above the model.

    python benchmarks/extraction/run.py [--transformer-lens-python PATH] [--repeats 3]

Every way (`ways.py`) runs in a process of its own on the same model and prompts (`material.py`),
and the ways take turns; medians are printed as Markdown and written to `run.csv`. TransformerLens
4.3.0 lives in an environment of its own, whose python PATH names; without it its rows are left out.
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

import material
import numpy as np

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {
    **os.environ,
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
    "HF_HUB_OFFLINE": "1",
}
TITLES = {
    "scripts": "evaluation-awareness scripts: a pass per layer and example, a .pt file each",
    "lens": "TransformerLens, batches of 32 in file order, names_filter",
    "lens_stop": "the same with stop_at_layer",
    "per_example": "transformers, a pass per example, output_hidden_states",
    "actprobe": "actprobe, the activations stage down to sealed files",
    "limit": "matrix products of actprobe's batches alone",
}


def measure(python: str, way: str, folder: Path) -> dict[str, float]:
    """CPU seconds after loading, and the peak of anonymous memory above the loaded model."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [python, str(HERE / "ways.py"), way, str(folder), scratch]
        child = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        sizes: list[tuple[float, float]] = []
        while child.poll() is None:
            status = Path(f"/proc/{child.pid}/status").read_text()
            if "RssAnon" in status:
                kb = int(status.partition("RssAnon:")[2].split()[0])
                sizes.append((time.monotonic(), kb * 1024 / 1e6))
            time.sleep(0.01)
        out, errors = child.communicate()
        if child.returncode:
            raise SystemExit(f"{command} failed:\n{errors}")
        found = json.loads(out.splitlines()[-1])
        _compare(Path(scratch), folder / "expected.npy", way)
    peak = max(mb for at, mb in sizes if at >= found["loaded_at"])
    return {**found, "memory_mb": peak - found["loaded_mb"]}


def _compare(scratch: Path, expected: Path, way: str) -> None:
    """The ways that keep last and mean must agree; the first one to run is the reference."""
    if not (scratch / "x.npy").exists():
        return
    x = np.load(scratch / "x.npy")
    if not expected.exists():
        np.save(expected, x)
    reference = np.load(expected)
    error = np.linalg.norm(x - reference, axis=-1) / np.linalg.norm(reference, axis=-1)
    if error.max() > 1e-5:
        raise SystemExit(f"{way}: activations differ by {error.max():.1e} (relative L2)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transformer-lens-python", metavar="PATH")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ways = [w for w in TITLES if options.transformer_lens_python or not w.startswith("lens")]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        material.make(Path(name))
        for _ in range(options.repeats):
            for way in ways:
                lens = way.startswith("lens")
                python = options.transformer_lens_python if lens else sys.executable
                found[way].append(measure(python, way, Path(name)))
                print(way, found[way][-1], file=sys.stderr)
    middle = {w: {k: median(r[k] for r in rs) for k in rs[0]} for w, rs in found.items()}
    own, limit = middle["actprobe"], middle["limit"]
    tokens = limit["tokens"]
    rows = [
        {
            "way": TITLES[way],
            "cpu_s": f"{m['cpu_s']:.2f}",
            "tokens_per_cpu_s": f"{tokens / m['cpu_s']:.0f}",
            "times_actprobe": f"{m['cpu_s'] / own['cpu_s']:.2f}",
            "whole_process_cpu_s": f"{m['process_s']:.1f}",
            "memory_above_model_mb": f"{m['memory_mb']:.0f}",
            "cpu_s_runs": " ".join(f"{r['cpu_s']:.2f}" for r in found[way]),
        }
        for way, m in middle.items()
    ]
    print("|" + "|".join(rows[0]) + "|\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("|" + "|".join(row.values()) + "|")
    print(
        f"\nactprobe: {limit['cpu_s'] / own['cpu_s']:.0%} of the matrix products of its batches, "
        f"{limit['bound_s'] / own['cpu_s']:.0%} of {limit['bound_s']:.2f} s, those of the tokens "
        f"without padding at {limit['gflop_per_s']:.0f} GFLOP/s; "
        f"padding {limit['padded'] / tokens - 1:.1%}"
    )
    with open(HERE / "run.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
