"""2^20 latents in little memory.

    python benchmarks/sae/million.py FOLDER [STEP …] [--peer PYTHON]

Ten datasets of 1,000 normal rows, and a JumpReLU SAE (width 2^20, d 2304, L0 100, float32) in
FOLDER. The steps, all of them in this order unless named:
  saelens        write the SAE in SAELens format; its W_dec is a hole in the file
  saelens-16     encode under an address space of 16 GiB, with max_memory 8 GB
  saelens-4      encode under an address space of 4 GiB, with max_memory 1400 MB
  peer           load the same file with sae-lens (PYTHON has it) under 4 GiB, and unlimited
  npz            write the same SAE as Gemma Scope's params.npz in its place (20 GB)
  npz-4          encode under 4 GiB
  compare        are the codes equal, bit for bit?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "unit"))

STEPS = ["saelens", "saelens-16", "saelens-4", "peer", "npz", "npz-4", "compare"]
MAX_MEMORY = {4: 1400 * 10**6, 16: 8 * 10**9}
L0 = 100


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("steps", nargs="*", metavar="STEP", default=STEPS)
    options.add_argument("--peer", help="Python with sae-lens")
    options.add_argument("--width", type=int, default=1 << 20)
    options.add_argument("--d", type=int, default=2304)
    options.add_argument("--datasets", type=int, default=10)
    options.add_argument("--rows", type=int, default=1000)
    o = options.parse_args()
    for step in o.steps:
        fmt, _, limit = step.partition("-")
        if limit:
            print(f"{step}:", *encode(o, fmt, int(limit)))
        elif step == "compare":
            compare(o)
        elif step == "peer":
            load_with_peer(o)
        else:
            shutil.rmtree(o.folder / "sae", ignore_errors=True)
            (o.folder / "sae").mkdir(parents=True)
            (write_saelens if fmt == "saelens" else write_npz)(o.folder / "sae", o.d, o.width)
        sys.stdout.flush()


def encode(o: argparse.Namespace, fmt: str, limit: int) -> list[str]:
    """Plan the datasets anew in a cache of their own and encode them under a limit."""
    cfg, planned = plan(o, fmt, limit)
    todo = {"config": cfg, "targets": [vars(t) for t in planned]}
    (o.folder / "todo.json").write_text(json.dumps(todo))
    threads = str(os.cpu_count())
    run = [sys.executable, str(HERE / "ways.py"), "ours", str(o.folder), threads]
    return limited(run, limit)


def plan(o: argparse.Namespace, fmt: str, limit: int) -> tuple[dict[str, Any], list[Any]]:
    import sae_tiny

    rng = np.random.default_rng(1)
    xs = {f"d{i:02}": rng.standard_normal((o.rows, o.d), np.float32) for i in range(o.datasets)}
    cache = o.folder / f"cache-{fmt}-{limit}"
    entry = {"source": str(o.folder / "sae"), "format": "gemma_scope" if fmt == "npz" else fmt,
             "device": "cpu", "identity": "revision", "revision": "1"}  # fmt: skip
    cfg = sae_tiny.config(cache, {"s": entry}, max_memory=MAX_MEMORY[limit])
    return cfg, sae_tiny.targets(cfg, sae_tiny.activations(cache, xs))["latents"]


def limited(run: list[str], gib: int | None) -> list[str]:
    """The last line that a process prints under a limit of its address space."""

    def limit() -> None:
        if gib is not None:
            resource.setrlimit(resource.RLIMIT_AS, (gib << 30, gib << 30))

    done = subprocess.run(run, preexec_fn=limit, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1:]


def load_with_peer(o: argparse.Namespace) -> None:
    if o.peer is None:
        print("peer: left out, no --peer")
        return
    load = f"""
import re, sae_lens
print("imported")
try:
    sae_lens.SAE.load_from_disk({str(o.folder / "sae")!r}, device="cpu")
    print("loaded,", re.search("VmHWM.*", open("/proc/self/status").read())[0])
except Exception as e:
    print(type(e).__name__, str(e).splitlines()[0])
"""
    for gib in (4, None):
        print(f"sae-lens, {gib or 'no limit'}:", *limited([o.peer, "-c", load], gib))


def compare(o: argparse.Namespace) -> None:
    """Whole artefacts of one format; of two formats the codes, since keys and headers differ."""
    from actprobe import sae
    from actprobe.base import keys

    files, codes = {}, {}
    for name in ("saelens-16", "saelens-4", "npz-4"):
        paths = sorted((o.folder / f"cache-{name}" / "latents" / "s").glob("*.h5"))
        files[name] = [keys.file_sha256(p) for p in paths]
        codes[name] = []
        for z in map(sae.open_latents, paths):
            arrays = z.data.tobytes() + z.indices.tobytes() + z.indptr.tobytes()
            codes[name].append(hashlib.sha256(arrays).hexdigest())
    print("datasets:", {k: len(v) for k, v in files.items()})
    print("saelens, 4 GiB and 16 GiB: files equal:", files["saelens-4"] == files["saelens-16"])
    print("npz and saelens: codes equal:", codes["npz-4"] == codes["saelens-16"])


def thresholds(width: int) -> np.ndarray:
    p = 10 ** np.random.default_rng(0).standard_normal(width)
    for _ in range(50):
        p = np.minimum(p * L0 / p.sum(), 0.5)
    return np.maximum(norm.isf(p), 0).astype(np.float32)


def vectors(d: int, width: int) -> dict[str, np.ndarray]:
    return {"b_enc": np.zeros(width), "threshold": thresholds(width), "b_dec": np.zeros(d)}


def write_saelens(folder: Path, d: int, width: int) -> None:
    """W_enc first, then the vectors; W_dec lies last."""
    small = vectors(d, width)
    shapes = {"W_enc": (d, width), **{k: v.shape for k, v in small.items()}, "W_dec": (width, d)}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(folder / "sae_weights.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        write_encoder(f, d, width)
        for v in small.values():
            f.write(v.astype("<f4").tobytes())
        f.truncate(8 + len(text) + at)
        forget(f)
    cfg = {"architecture": "jumprelu", "d_in": d, "d_sae": width, "dtype": "float32",
           "device": "cpu", "apply_b_dec_to_input": False, "normalize_activations": "none",
           "metadata": {"sae_lens_version": "6.54.12"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))


def write_npz(folder: Path, d: int, width: int) -> None:
    """As numpy.savez writes it, piece by piece."""
    with zipfile.ZipFile(folder / "params.npz", "w") as z:
        for name, shape in (("w_enc", (d, width)), ("w_dec", (width, d))):
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                npy_header(f, shape)
                if name == "w_enc":
                    write_encoder(f, d, width)
                else:
                    for _ in range(d):
                        f.write(bytes(4 * width))
        for name, v in vectors(d, width).items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                npy_header(f, v.shape)
                f.write(v.astype("<f4").tobytes())
    with open(folder / "params.npz", "r+b") as f:
        forget(f)


def npy_header(f: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(f, header)


def write_encoder(f: Any, d: int, width: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(d):
        f.write((rng.standard_normal(width, np.float32) / np.float32(d**0.5)).tobytes())


def forget(f: Any) -> None:
    """Take the file out of the page cache: the next read is from disk."""
    f.flush()
    os.fsync(f.fileno())
    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
