"""Assembling 1.4 GB of chunks into artefacts: seconds and memory.

    python benchmarks/dumps/assembly.py

Two kinds of dump, each eight `.pt` files of 173 MB and a list of token strings: matrices
[windows, 64, 512] in bfloat16, and SAE codes per (window, latent) of which 6 % are not zero. Each
chunk is checked against its digest before it is read. For comparison the plain way: `torch.load`
all files, concatenate, save. Results are printed as Markdown and written to `assembly.csv`.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import measure

HERE = Path(__file__).resolve().parent
FILES = 8
LENGTH = 64
WINDOWS = 2640  # per file: [2640, 64, 512] bfloat16 are 173 MB
PAIRS = 1_200_000  # per file: 144 bytes each are 173 MB


def write(folder: str, content: str) -> None:
    """The files of a dump, placed in a cache as if fetched, and its lock file."""
    import numpy as np
    import torch

    from actprobe.dumps import digests, lockfile

    chance = np.random.default_rng(0)
    locked = []
    config = configured(folder, content)
    for i in range(FILES + 1):
        name = f"resid_pre.0.chunk_{i}.pt" if i < FILES else "all_token_ids.pt"
        path = Path(folder, name)
        n_windows = (FILES * WINDOWS) if content == "activations" else FILES * 6000
        if i == FILES:
            torch.save(
                [[f"Ġw{(w * 31 + t) % 5003}" for t in range(LENGTH)] for w in range(n_windows)],
                path,
            )
        elif content == "activations":
            bits = chance.integers(0x3C00, 0x4100, (WINDOWS, LENGTH, 512), dtype=np.int16)
            torch.save(torch.from_numpy(bits).view(torch.bfloat16), path)
        else:
            codes = chance.random((PAIRS, LENGTH), dtype=np.float32).astype(np.float16)
            codes[chance.random((PAIRS, LENGTH), dtype=np.float32) > 0.06] = 0
            codes[:, 0] = 1
            window = np.repeat(np.arange(6000), PAIRS // 6000) + i * 6000
            latent = np.tile(np.arange(PAIRS // 6000) * 100, 6000)
            tensors = {
                "nonzero_activations": torch.from_numpy(codes),
                "data_indices": torch.from_numpy(window),
                "neuron_indices": torch.from_numpy(latent),
            }
            torch.save(tensors, path)
        digest = digests.file_digest(path, "md5")
        into = Path(digests.raw_path(config["cache_dir"], "d", "md5", digest, name))
        into.parent.mkdir(parents=True, exist_ok=True)
        locked.append(lockfile.LockedFile(name, path.stat().st_size, "md5", digest, "t/p/r"))
        path.rename(into)
    lock = lockfile.Lock(lockfile.config_source(config, "d"), {}, tuple(locked))
    lockfile.write(lock, f"{folder}/lock.json")


def configured(folder: str, content: str) -> dict:
    from actprobe import config as configuration

    entry = {"source": {"run": "t/p/r"}, "lock": f"{folder}/lock.json", "content": content}
    dumps = configuration.section("dumps", {"d": entry})
    return {"cache_dir": f"{folder}/cache", "dumps": dumps, "shards": {}, "on_bad_dataset": "stop"}


def assemble(folder: str, content: str) -> None:
    from actprobe.base.keys import DigestMemo
    from actprobe.cache import plan
    from actprobe.dumps.assemble import run
    from actprobe.dumps.targets import targets

    config = configured(folder, content)
    found = targets(config, {}, DigestMemo(config["cache_dir"]))
    planned = plan.make(config, found, [t.path for t in found])
    [batch] = planned.of("assemble") + planned.of("assemble_latents")
    run(batch, config, 1)


def plain(folder: str, content: str) -> None:
    """Load everything, concatenate, save."""
    import torch

    files = [p for p in Path(folder, "cache/dumps/d").iterdir() if p.stat().st_size > 10**8]
    loaded = [torch.load(p, weights_only=True) for p in files]
    if content == "activations":
        whole = torch.cat(loaded)
    else:
        whole = {k: torch.cat([part[k] for part in loaded]) for k in loaded[0]}
    torch.save(whole, Path(folder, "whole.pt"))


def main() -> None:
    rows = []
    for content in ("activations", "latents"):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            command = [sys.executable, __file__, "--one"]
            measure.run([*command, "write", folder, content])
            for name in ("plain", "assemble"):
                cost = measure.run([*command, name, folder, content], {"OMP_NUM_THREADS": "1"})
                out = sum(p.stat().st_size for p in Path(folder, "cache").rglob("*.h5")) / 1e6
                rows.append((content, name, cost.wall, cost.cpu, cost.memory, out))
                print(*rows[-1], flush=True)
    head = ["content", "way", "wall_s", "cpu_s", "peak_memory_mb", "artefact_mb"]
    with open(HERE / "assembly.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(head)
        writer.writerows([*r[:2], *(f"{v:.4g}" for v in r[2:])] for r in rows)
    print("|" + "|".join(head) + "|\n|" + "---|" * len(head))
    for r in rows:
        print("|" + "|".join([*r[:2], *(f"{v:.3g}" for v in r[2:])]) + "|")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        {"write": write, "assemble": assemble, "plain": plain}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
