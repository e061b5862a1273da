"""How long does `snakemake -n` take for 113 datasets x 4 layers x 20 SAEs x 4 settings?

    python benchmarks/plan/plan.py [--datasets 113] [--saes 20]

Makes a project of that shape in a temporary folder (csv files of two rows, a model folder with a
config.json, SAE folders with a header and no weights: planning reads no more), and reports CPU and
wall seconds of a dry run with nothing computed, with everything there, and with one dataset added.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from actprobe import config as configuration
from actprobe import experiment, store
from actprobe.keys import DigestMemo

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (9, 20, 31, 41)
SETTINGS = ("normal", "scarcity", "imbalance", "label_noise")


def make_project(folder: Path, datasets: int, saes: int) -> dict:
    """Files and config of the project."""
    for i in range(datasets + 1):
        (folder / f"d{i}.csv").write_text("text,label\na,0\nb,1\n")
    model = folder / "model"
    model.mkdir()
    described = {"model_type": "gemma2", "num_hidden_layers": 42, "hidden_size": 64}
    (model / "config.json").write_text(json.dumps(described))
    (model / "model.safetensors").write_bytes(b"")
    for i in range(saes):
        make_sae(folder / f"sae{i}", LAYERS[i % 4], d=64, width=1024)
    return {
        "experiment": "plan",
        "datasets": [{"names": [f"d{i}" for i in range(datasets)], "path": "{name}.csv"}],
        "models": {"gemma": {"source": "model"}},
        "activations": [
            {
                "model": "gemma",
                "sites": [f"resid_post.{n}" for n in LAYERS],
                "positions": ["last"],
            }
        ],
        "saes": {
            f"sae{i}": {
                "source": f"sae{i}",
                "model": "gemma",
                "site": f"resid_post.{LAYERS[i % 4]}",
            }
            for i in range(saes)
        },
        "probes": [
            {"protocol": "saeprobes-0.4.2", "settings": list(SETTINGS), "sources": ["gemma/*"],
             "methods": ["logreg"]},
            {"protocol": "saeprobes-0.4.2", "settings": list(SETTINGS), "sources": ["sae*"],
             "methods": ["ksparse_b"]},
        ],
    }  # fmt: skip


def make_sae(folder: Path, layer: int, d: int, width: int) -> None:
    """A SAELens folder whose weights are a hole in the file."""
    folder.mkdir()
    shapes = {"W_enc": [d, width], "W_dec": [width, d], "b_enc": [width], "b_dec": [d],
              "threshold": [width]}  # fmt: skip
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(folder / "sae_weights.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    cfg = {"architecture": "jumprelu", "d_in": d, "d_sae": width, "dtype": "float32",
           "apply_b_dec_to_input": False, "normalize_activations": "none",
           "metadata": {"sae_lens_version": "6.5.0", "model_name": "gemma",
                        "hook_name": f"blocks.{layer}.hook_resid_post"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))


def dry_run(folder: Path, config: dict) -> tuple[float, float, str]:
    """CPU seconds, wall seconds and what `snakemake -n` said."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile"),
               "--directory", str(folder), "--configfile", str(folder / "config.yaml"),
               "--cores", "2"]  # fmt: skip
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    p = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert p.returncode == 0, p.stdout + p.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = next(line for line in p.stderr.splitlines() if line.startswith("plan:"))
    return cpu, wall, said


def fill_cache(folder: Path, config: dict) -> None:
    """Sealed files that hold nothing but their header, at every target's path."""
    resolved = configuration.resolve(config) | {"cache_dir": str(folder / "cache")}
    relative = experiment.stages({**resolved, "cache_dir": "cache"}, DigestMemo(folder))
    for t in (t for ts in relative.values() for t in ts):
        path = folder / t.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.make_header(t.spec))
        store.seal(path)


def main() -> None:
    """Print the table that stands in results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=113)
    parser.add_argument("--saes", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        config = make_project(folder, args.datasets, args.saes)
        rows = [("nothing computed", *dry_run(folder, config))]
        os.chdir(folder)
        fill_cache(folder, config)
        rows.append(("all cached files there", *dry_run(folder, config)))
        config["datasets"][0]["names"].append(f"d{args.datasets}")
        rows.append(("one dataset added", *dry_run(folder, config)))
    print("| `snakemake -n` | CPU s | wall s | |\n|---|---|---|---|")
    for what, cpu, wall, said in rows:
        print(f"| {what} | {cpu:.1f} | {wall:.1f} | {said} |")


if __name__ == "__main__":
    main()
