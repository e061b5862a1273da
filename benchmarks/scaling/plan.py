"""How long does `snakemake -n` take for 10, 100, 1,000 and 10,000 cached files?

    python benchmarks/scaling/plan.py

Makes projects of these sizes in temporary folders (csv files of two rows, a model folder with a
config.json, SAE folders with a header and no weights: planning reads no more), and prints CPU
seconds and peak memory of a dry run with nothing computed, with everything there, and with one
dataset added. The last size is 113 datasets x 4 layers x 20 SAEs x 4 settings.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from actprobe import config as configuration
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.experiment import targets as experiment

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (9, 20, 31, 41)
SETTINGS = ("normal", "scarcity", "imbalance", "label_noise")
# datasets, layers, SAEs, settings: datasets * (1 + layers + SAEs + settings * (layers + SAEs)) files
SIZES = [(2, 1, 1, 1), (20, 1, 1, 1), (40, 4, 4, 2), (99, 4, 16, 4), (113, 4, 20, 4)]


def make_project(folder: Path, datasets: int, layers: int, saes: int, settings: int) -> dict:
    """Files and config of the project."""
    for i in range(datasets + 1):
        (folder / f"d{i}.csv").write_text("text,label\na,0\nb,1\n")
    model = folder / "model"
    model.mkdir()
    described = {"model_type": "gemma2", "num_hidden_layers": 42, "hidden_size": 64}
    (model / "config.json").write_text(json.dumps(described))
    (model / "model.safetensors").write_bytes(b"")
    for i in range(saes):
        make_sae(folder / f"sae{i}", LAYERS[i % layers], d=64, width=1024)
    shared = {"protocol": "saeprobes-0.4.2", "settings": list(SETTINGS[:settings])}
    return {
        "experiment": "plan",
        "datasets": [{"names": [f"d{i}" for i in range(datasets)], "path": "{name}.csv"}],
        "models": {"gemma": {"source": "model"}},
        "activations": [
            {
                "model": "gemma",
                "sites": [f"resid_post.{n}" for n in LAYERS[:layers]],
                "positions": ["last"],
            }
        ],
        "saes": {
            f"sae{i}": {
                "source": f"sae{i}",
                "model": "gemma",
                "site": f"resid_post.{LAYERS[i % layers]}",
            }
            for i in range(saes)
        },
        "probes": [
            {**shared, "sources": ["gemma/*"], "methods": ["logreg"]},
            {**shared, "sources": ["sae*"], "methods": ["ksparse_b"]},
        ],
    }


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
    """CPU seconds, peak resident MB and the first line that `snakemake -n` said of the plan."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile"),
               "--directory", str(folder), "--configfile", str(folder / "config.yaml"),
               "--cores", "2"]  # fmt: skip
    with open(folder / "said", "w") as said:
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(p.pid, 0)
    text = (folder / "said").read_text()
    assert status == 0, text
    line = next(x for x in text.splitlines() if x.startswith("plan:"))
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, line


def fill_cache(folder: Path, config: dict) -> None:
    """Sealed files that hold nothing but their header, at every target's path."""
    resolved = configuration.resolve(config) | {"cache_dir": str(folder / "cache")}
    relative = experiment.stages({**resolved, "cache_dir": "cache"}, DigestMemo(folder))
    for t in (t for ts in relative.values() for t in ts):
        path = folder / t.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.make_header(t.record))
        store.seal(path)


def main() -> None:
    """Print the table that stands in results.md."""
    print("| files | jobs | nothing computed | all there | one dataset added | MB |")
    print("|---|---|---|---|---|---|")
    for datasets, layers, saes, settings in SIZES:
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp)
            config = make_project(folder, datasets, layers, saes, settings)
            nothing, most, said = dry_run(folder, config)
            os.chdir(folder)
            fill_cache(folder, config)
            there, _, _ = dry_run(folder, config)
            config["datasets"][0]["names"].append(f"d{datasets}")
            added, _, _ = dry_run(folder, config)
            os.chdir(ROOT)
        words = said.split()
        print(
            f"| {int(words[1]):,} | {words[-2]} | {nothing:.1f} | {there:.1f} | {added:.1f} "
            f"| {most:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
