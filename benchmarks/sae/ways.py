"""The ways that encoding.py compares, each in a process of its own: ways.py WAY FOLDER."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def peer(folder: Path, reload: bool) -> tuple[int, int]:
    """sae-lens as its users do it; (bytes on disk, non-zeros)."""
    import numpy as np
    import torch
    from sae_lens import SAE

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
    return size, nnz


def ours(folder: Path) -> tuple[int, int]:
    from actprobe.sae.kernel import prefer_avx512

    prefer_avx512()
    from actprobe import store
    from actprobe.plan import Batch, Target
    from actprobe.sae.latents_stage import run

    todo = json.loads((folder / "todo.json").read_text())
    ts = tuple(Target(**{**t, "inputs": tuple(t["inputs"])}) for t in todo["targets"])
    run(Batch("r", "latents", "s", ts), todo["config"], 1)
    nnz = sum(store.read_header(t.path)["facts"]["nnz"] for t in ts)
    return sum(Path(t.path).stat().st_size for t in ts), nnz


def product(folder: Path) -> tuple[int, int]:
    """Products of the stage's tiles and one read of W_enc; nothing is kept."""
    from actprobe.sae.kernel import prefer_avx512

    prefer_avx512()
    import numpy as np

    from actprobe.sae.formats import describe
    from actprobe.sae.pieces import COLUMNS, ROWS
    from actprobe.sae.weights import Weights

    x = np.load(folder / "x.npy")
    sae = describe(folder / "sae")
    with Weights(sae) as weights:
        for low in range(0, sae.d_sae, COLUMNS):
            w = weights.encoder.block(low, min(low + COLUMNS, sae.d_sae))
            out = np.empty((ROWS, w.shape[1]), np.float32)
            for rows in x:
                for a in range(0, len(rows), ROWS):
                    part = rows[a : a + ROWS]
                    np.matmul(part, w, out=out[: len(part)])
    return 0, 0


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2])
    began = time.perf_counter()
    ways = {"ours": ours, "product": product}
    size, nnz = ways[way](folder) if way in ways else peer(folder, reload=way == "a")
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "cpu_s": f"{used.ru_utime + used.ru_stime:.1f}",
        "wall_s": f"{time.perf_counter() - began:.1f}",
        "peak_gib": f"{used.ru_maxrss / 2**20:.2f}",
    }
    if nnz:
        found |= {"nnz": f"{nnz}", "bytes_per_nnz": f"{size / nnz:.2f}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
