"""2^20 latents in little memory.

    python benchmarks/sae/million.py FOLDER [--peer PYTHON] [--d 2304] [--datasets 10] [--rows 1000]

Writes a JumpReLU SAE (L0 100, float32; W_dec is a hole, or zeros) to FOLDER in SAELens format, then
as Gemma Scope npz, and encodes the datasets: under an address space of 4 GiB and `max_memory`
1400 MB, under 16 GiB and 8 GB, and the npz under 4 GiB. PYTHON is an interpreter with sae-lens, which
is asked to load the first file under 4 GiB. Needs 20 GB of disk, which it gives back.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

WIDTH, L0 = 1 << 20, 100


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--peer", help="Python with sae-lens")
    options.add_argument("--d", type=int, default=2304)
    options.add_argument("--datasets", type=int, default=10)
    options.add_argument("--rows", type=int, default=1000)
    options.add_argument("--todo", type=Path, help=argparse.SUPPRESS)
    o = options.parse_args()
    if o.todo:
        encode(o.todo)
        return
    import sae_tiny

    rng = np.random.default_rng(1)
    xs = {f"d{i:02}": rng.standard_normal((o.rows, o.d), np.float32) for i in range(o.datasets)}
    digests = {}
    for fmt, write in (("saelens", write_saelens), ("gemma_scope", write_npz)):
        source = o.folder / fmt
        source.mkdir(parents=True)
        write(source, o.d)
        if o.peer and fmt == "saelens":
            load = f"import sae_lens; sae_lens.SAE.load_from_disk({str(source)!r})"
            print("sae-lens under 4 GiB:", *limited([o.peer, "-c", load], 4)[-1:])
        for limit, memory in ((4, 1400 * 10**6), (16, 8 * 10**9))[: 1 + (fmt == "saelens")]:
            cache = o.folder / f"cache-{fmt}-{limit}"
            entry = {
                "source": str(source),
                "device": "cpu",
                "identity": "revision",
                "revision": "1",
            }
            cfg = sae_tiny.config(cache, {"s": entry}, max_memory=memory)
            planned = sae_tiny.targets(cfg, sae_tiny.activations(cache, xs))["latents"]
            todo = o.folder / "todo.json"
            todo.write_text(json.dumps({"config": cfg, "targets": [vars(t) for t in planned]}))
            run = [sys.executable, __file__, str(o.folder), "--todo", str(todo)]
            print(
                f"{fmt}, {limit} GiB, max_memory {memory / 1e6:.0f} MB:", *limited(run, limit)[-1:]
            )
            sys.stdout.flush()
            digests[fmt, limit] = [codes_digest(t.path) for t in planned]
        shutil.rmtree(source)
    print("codes equal:", len({tuple(d) for d in digests.values()}) == 1)
    shutil.rmtree(o.folder)


def limited(run: list[str], gib: int) -> list[str]:
    """The last lines that a process prints under a limit of its address space."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (gib << 30, gib << 30))

    done = subprocess.run(run, preexec_fn=limit, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()


def encode(todo: Path) -> None:
    """Run the stage in this process; prints what it took."""
    import logging

    from actprobe.plan import Batch, Target
    from actprobe.sae.latents_stage import run

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("actprobe").addHandler(handler)
    logging.getLogger("actprobe").setLevel("INFO")
    content: dict[str, Any] = json.loads(todo.read_text())
    ts = tuple(Target(**{**t, "inputs": tuple(t["inputs"])}) for t in content["targets"])
    began, used = time.perf_counter(), time.process_time()
    run(Batch("r", "latents", "s", ts), content["config"], os.cpu_count() or 1)
    read = next(m for m in said if "read" in m)
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20  # type: ignore[index]
    print(
        f"{time.process_time() - used:.0f} CPU s, {time.perf_counter() - began:.0f} s, "
        f"peak {peak:.2f} GiB resident, {re.search('[0-9.]+ GB', read)[0]} read"  # type: ignore[index]
    )


def codes_digest(path: str) -> str:
    """Digest of the codes alone: the key differs between formats."""
    import hashlib

    from actprobe import sae

    z = sae.open_latents(path)
    return hashlib.sha256(z.data.tobytes() + z.indices.tobytes() + z.indptr.tobytes()).hexdigest()


def thresholds() -> np.ndarray:
    p = 10 ** np.random.default_rng(0).standard_normal(WIDTH)
    for _ in range(50):
        p = np.minimum(p * L0 / p.sum(), 0.5)
    return np.maximum(norm.isf(p), 0).astype(np.float32)


def write_saelens(folder: Path, d: int) -> None:
    """W_enc first, then the vectors; W_dec lies last and is a hole in the file."""
    vectors = {"b_enc": np.zeros(WIDTH), "threshold": thresholds(), "b_dec": np.zeros(d)}
    shapes = {"W_enc": (d, WIDTH), **{k: v.shape for k, v in vectors.items()}, "W_dec": (WIDTH, d)}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path = folder / "sae_weights.safetensors"
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        write_encoder(f, d)
        for v in vectors.values():
            f.write(v.astype("<f4").tobytes())
        f.truncate(8 + len(text) + at)
        forget(f)
    cfg = {"architecture": "jumprelu", "d_in": d, "d_sae": WIDTH, "dtype": "float32",
           "device": "cpu", "apply_b_dec_to_input": False, "normalize_activations": "none",
           "metadata": {"sae_lens_version": "6.54.12"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))


def write_npz(folder: Path, d: int) -> None:
    """As numpy.savez writes it, piece by piece."""
    vectors = {"b_enc": np.zeros(WIDTH), "threshold": thresholds(), "b_dec": np.zeros(d)}
    with zipfile.ZipFile(folder / "params.npz", "w") as z:
        for name, shape in (("w_enc", (d, WIDTH)), ("w_dec", (WIDTH, d))):
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                npy_header(f, shape)
                if name == "w_enc":
                    write_encoder(f, d)
                else:
                    for _ in range(d):
                        f.write(bytes(4 * WIDTH))
        for name, v in vectors.items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                npy_header(f, v.shape)
                f.write(v.astype("<f4").tobytes())
    with open(folder / "params.npz", "r+b") as f:
        forget(f)


def npy_header(f: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(f, header)


def write_encoder(f: Any, d: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(d):
        f.write((rng.standard_normal(WIDTH, np.float32) / np.float32(d**0.5)).tobytes())


def forget(f: Any) -> None:
    """Take the file out of the page cache: the next read is from disk."""
    f.flush()
    os.fsync(f.fileno())
    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
