"""The ways that are compared, each in a process of its own: ways.py WAY FOLDER [THREADS].

Prints one JSON line: CPU seconds (user and system) and wall seconds after start-up, CPU seconds of
start-up and imports, peak resident memory, non-zeros and bytes on disk for each, and how many
bytes of the SAE's file were read.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peer(folder: Path, reload: bool) -> Callable[[], dict[str, Any]]:
    """sae-lens as its users do it."""
    import numpy as np
    import torch
    from sae_lens import SAE

    def work() -> dict[str, Any]:
        size = nnz = 0
        sae = None
        for i, rows in enumerate(np.load(folder / "x.npy", mmap_mode="r")):
            if sae is None or reload:
                sae = SAE.load_from_disk(folder / "sae", device="cpu")
            x = torch.from_numpy(np.array(rows))
            with torch.inference_mode():
                z = torch.cat([sae.encode(x[a : a + 128]) for a in range(0, len(x), 128)])
            sparse = z.to_sparse()
            torch.save(sparse, folder / f"{i}.pt")
            size += (folder / f"{i}.pt").stat().st_size
            nnz += sparse.values().numel()
            (folder / f"{i}.pt").unlink()
        return {"nnz": nnz, "bytes": size}

    return work


def ours(folder: Path, threads: int) -> Callable[[], dict[str, Any]]:
    from actprobe.sae.kernel import prefer_avx512

    prefer_avx512()
    from actprobe.cache import store
    from actprobe.cache.plan import Batch, Target
    from actprobe.sae.latents_stage import run

    todo = json.loads((folder / "todo.json").read_text())
    ts = tuple(Target(**{**t, "inputs": tuple(t["inputs"])}) for t in todo["targets"])
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("actprobe").addHandler(handler)
    logging.getLogger("actprobe").setLevel("INFO")

    def work() -> dict[str, Any]:
        run(Batch("r", "latents", "s", ts), todo["config"], threads)
        found = {
            "nnz": sum(store.read_header(t.path)["facts"]["nnz"] for t in ts),
            "bytes": sum(Path(t.path).stat().st_size for t in ts),
        }
        read = [m[1] for s in said if (m := re.search(r"([0-9.]+ GB) of .* read", s))]
        return found | {"weights_read": " + ".join(read)}

    return work


def product(folder: Path) -> Callable[[], dict[str, Any]]:
    """Products of the stage's tiles and one read of W_enc; nothing is kept."""
    from actprobe.sae.kernel import prefer_avx512

    prefer_avx512()
    import numpy as np

    from actprobe.sae.formats import describe
    from actprobe.sae.pieces import COLUMNS, ROWS
    from actprobe.sae.weights import Weights

    def blocks(w: Any, d_sae: int) -> Iterator[Any]:
        for low in range(0, d_sae, 4 * COLUMNS):
            yield w.block(low, min(low + 4 * COLUMNS, d_sae))

    def work() -> dict[str, Any]:
        x = np.load(folder / "x.npy")
        sae = describe(folder / "sae")
        out = np.empty((ROWS, COLUMNS), np.float32)
        with Weights(sae) as weights:
            for w in blocks(weights.encoder, sae.d_sae):
                for rows in x:
                    for a in range(0, len(rows), ROWS):
                        part = rows[a : a + ROWS]
                        for b in range(0, w.shape[1], COLUMNS):
                            np.matmul(part, w[:, b : b + COLUMNS], out=out[: len(part)])
        return {}

    return work


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2])
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    if way == "ours":
        work = ours(folder, threads)
    else:
        work = product(folder) if way == "product" else peer(folder, reload=way == "a")
    started, began = cpu_seconds(), time.perf_counter()
    found = work()
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20  # type: ignore[index]
    result = {
        "cpu_s": f"{cpu_seconds() - started:.1f}",
        "start_cpu_s": f"{started:.1f}",
        "wall_s": f"{time.perf_counter() - began:.1f}",
        "peak_gib": f"{peak:.2f}",
    }
    if "nnz" in found:
        found["bytes_per_nnz"] = f"{found.pop('bytes') / found['nnz']:.2f}"
    print(json.dumps(result | found))


if __name__ == "__main__":
    main()
