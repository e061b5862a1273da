"""Twenty contrastive experiments on one cache: how long does each take, with no forward pass?

    python benchmarks/contrastive/experiments.py [--width 8192] [--output experiments.csv]

Makes a cache of the shape of a 70B model's in the layout of the evaluation-awareness scripts: 200
test and 200 deploy rows of pairs, 200 validation rows, nine layers, bfloat16, one vector each. It
is imported once; then twenty experiments (layer subsets, methods, penalties, seeds) are run one by
one with `snakemake --cores 2`, from planning to tables, figures and page. Reports CPU and wall
seconds of each whole command.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from actprobe.models import fixture

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (10, 20, 23, 25, 30, 40, 50, 60, 70)
METHODS = ("mean_difference", "logreg", "lda")


def make_cache(folder: Path, width: int) -> None:
    """Two caches in layout v1: of the pairs of letters and of the validation rows."""
    pairs, rows = fixture.letters(), fixture.validation()
    generator = torch.Generator().manual_seed(0)
    own = 0.02 * torch.randn(width, generator=generator)

    def rows_of(n: int, sign: float) -> torch.Tensor:
        x = torch.randn(n, 1, width, generator=generator) * 0.5 + 3
        return (x + sign * own).bfloat16()

    for layer in LAYERS:
        at = folder / "pairs" / f"layer_{layer}"
        at.mkdir(parents=True)
        torch.save(rows_of(len(pairs), 1), at / "test_activations.pt")
        torch.save(rows_of(len(pairs), -1), at / "deploy_activations.pt")
        at = folder / "rows" / f"layer_{layer}"
        at.mkdir(parents=True)
        sign = torch.tensor([1.0 if r["type"] == "testing" else -1.0 for r in rows])
        x = rows_of(len(rows), 0) + (sign[:, None, None] * own).bfloat16()
        torch.save(x, at / "activations.pt")
    described = {
        "pairs": [
            {"idx": i, "question": "You must guess whether … " + r["question"],
             "test_answer": r["positive"], "deploy_answer": r["negative"]}
            for i, r in enumerate(pairs)
        ],
        "rows": [{"idx": i, "question": r["question"], "type": r["type"]}
                 for i, r in enumerate(rows)],
    }  # fmt: skip
    for name, metadata in described.items():
        info = {"layers": LAYERS, "num_examples": len(metadata), "activation_shape": [1, width]}
        (folder / name / "metadata.json").write_text(json.dumps(metadata))
        (folder / name / "layer_info.json").write_text(json.dumps(info))


def base_config() -> dict:
    """Datasets and imports that all experiments share."""
    common = {"layout": "v1", "model": "llama", "hook": "resid_post"}
    return {
        "datasets": [
            {"name": "letters", "path": "fixture/letters.json", "text": "question",
             "contrastive": {}},
            {"name": "validation", "path": "fixture/validation.json", "text": "question",
             "label": "type", "positive": "testing"},
        ],
        "imports": {
            "pairs": {**common, "folder": "dump/pairs", "datasets": ["letters"]},
            "rows": {**common, "folder": "dump/rows", "datasets": ["validation"]},
        },
    }  # fmt: skip


def experiments() -> list[tuple[str, dict, dict]]:
    """Twenty entries of `probes` and what their protocols change of contrastive-1: none shares a
    direction with another."""
    entry = {"datasets": ["letters"], "apply_to": ["validation"]}
    found = [(f"all nine layers, all methods, seed {s}", entry, {"seeds": [s]}) for s in range(8)]
    found += [
        (f"all nine layers, {m}", {**entry, "methods": [m]}, {"seeds": [10]}) for m in METHODS
    ]
    found += [
        (f"all nine layers, logreg, C = {c}", {**entry, "methods": ["logreg"]},
         {"seeds": [11], "methods": {"logreg": {"solver": {"C": c}}}})
        for c in (0.01, 0.1, 10.0)
    ]  # fmt: skip
    found += [
        (f"layers {', '.join(map(str, layers))}",
         {**entry, "sources": [f"llama/resid_post.{n}.*" for n in layers]}, {"seeds": [20 + i]})
        for i, layers in enumerate([(10, 20, 23), (25, 30, 40), (50, 60, 70), (40,), LAYERS[::2]])
    ]  # fmt: skip
    found.append(
        ("all nine layers, 1000 + 1000 null directions", entry,
         {"seeds": [30], "controls": {"random": 1000, "permuted": 1000}})
    )  # fmt: skip
    return found


def snakemake(folder: Path, config: dict, *args: str) -> tuple[float, float, str]:
    """CPU and wall seconds of one command, and what it printed."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", *args, "-s", str(ROOT / "Snakefile")]
    command += ["--cores", "2", "--directory", str(folder)]
    command += ["--configfile", str(folder / "config.yaml")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began, done.stdout + done.stderr


def main() -> None:
    """Run all experiments and write one row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("experiments.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixture.write_data(folder / "fixture")
        make_cache(folder / "dump", args.width)
        config = base_config()
        cpu, wall, _ = snakemake(folder, {**config, "experiment": "import"}, "imports")
        rows = [["import of 18 files", f"{cpu:.1f}", f"{wall:.1f}", "18"]]
        for n, (title, entry, changes) in enumerate(experiments(), 1):
            protocol = {"extends": "contrastive-1", "name": f"own-{n}", **changes}
            (folder / f"own-{n}.yaml").write_text(yaml.safe_dump(protocol))
            entry = {**entry, "protocol": f"own-{n}.yaml"}
            own = {**config, "experiment": f"e{n}", "probes": [entry]}
            cpu, wall, said = snakemake(folder, own)
            assert "imports_" not in said, "an experiment read activations again"
            rows.append([title, f"{cpu:.1f}", f"{wall:.1f}", "0"])
            print(*rows[-1], sep="\t", flush=True)
    with open(args.output, "w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["experiment", "cpu_s", "wall_s", "activation_files_made"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
