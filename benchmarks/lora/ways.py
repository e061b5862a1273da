"""One way to compute features of a collection, in a process of its own: what `run.py` measures.

    python benchmarks/lora/ways.py formatter|loops|files|tables SOURCE CACHE [all]

Prints the peak of its resident memory in MB.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def formatter(source: str) -> None:
    """Nine representations, each reading every column of a torch-formatted `datasets` table."""
    import per_matrix
    import torch
    from datasets import load_from_disk

    torch.set_num_threads(1)
    table = load_from_disk(source)
    for representation in per_matrix.NINE:
        for column in table.column_names:
            x = table.select_columns([column]).with_format("torch")[:][column]
            torch.stack([representation(m) for m in x])


def loops(source: str) -> None:
    """Nine representations in loops over LoRAs; every tensor is read once, from HDF5."""
    import h5py
    import per_matrix
    import torch

    torch.set_num_threads(1)
    with h5py.File(source) as f:
        for name in f:
            x = torch.from_numpy(f[name][:])
            for representation in per_matrix.NINE:
                torch.stack([representation(m) for m in x])


def actprobe(kind: str, source: str, cache: str, everything: bool) -> None:
    """Index, primitives and representations of the workflow: the nine, or all of them."""
    from actprobe import config, lora
    from actprobe.base import keys
    from actprobe.cache import plan
    from actprobe.lora import features, index, primitives
    from actprobe.lora.catalog import REPRESENTATIONS

    nine = [r.name for r in REPRESENTATIONS.values() if r.unit == "factor" and r.default]
    loras = {"c": {kind: source, "representations": None if everything else nine}}
    cfg = {
        "cache_dir": cache,
        "max_memory": 2 * 10**9,
        "on_bad_dataset": "stop",
        "loras": config.section("loras", loras),
    }
    memo = keys.DigestMemo(cache)
    collections = lora.collections(cfg, memo)
    found: list[plan.Target] = [
        *(c.index for c in collections.values()),
        *lora.targets(collections),
    ]
    memo.save()
    read = {p for t in found for p in t.inputs}
    planned = plan.make(cfg, found, [t.path for t in found if t.path not in read])
    for stage, run in (
        ("lora_index", index.run),
        ("lora_primitives", primitives.run),
        ("features", features.run),
    ):
        for batch in planned.of(stage):
            run(batch, cfg, 1)


if __name__ == "__main__":
    way, source, cache, *rest = sys.argv[1:]
    Path(cache).mkdir(parents=True, exist_ok=True)
    if way in ("files", "tables"):
        actprobe(way, source, cache, bool(rest))
    else:
        {"formatter": formatter, "loops": loops}[way](source)
    # Not ru_maxrss, which a process inherits from the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(int(peak[1]) * 1024 / 1e6 if peak else float("nan"))
