"""Synthetic LoRAs of the shape of Stable Diffusion 1.5: 64 modules, 128 tensors, as files and tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WIDTHS = [("down_blocks.0", 320, 2), ("down_blocks.1", 640, 2), ("down_blocks.2", 1280, 2),
          ("mid_block", 1280, 1), ("up_blocks.1", 1280, 3), ("up_blocks.2", 640, 3),
          ("up_blocks.3", 320, 3)]  # fmt: skip


def modules() -> Iterator[tuple[str, int, int]]:
    """Path, d_out and d_in of every module."""
    for block, d, attentions in WIDTHS:
        for a in range(attentions):
            for name in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v"):
                path = f"{block}.attentions.{a}.transformer_blocks.0.{name}"
                yield path, d, 768 if name == "attn2.to_v" else d


def lora(seed: int, rank: int) -> dict[str, np.ndarray]:
    """The tensors of one LoRA."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, d_out, d_in in modules():
        down = rng.standard_normal((rank, d_in), dtype=np.float32) / rank
        up = rng.standard_normal((d_out, rank), dtype=np.float32) * np.float32(0.01)
        tensors |= {f"unet.{path}.lora.down.weight": down, f"unet.{path}.lora.up.weight": up}
    return tensors


def write_files(folder: Path, n: int, rank: int, distinct: int = 500) -> None:
    """n safetensors files; after the first `distinct` ones they are hard links to these."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    for i in range(n):
        path = folder / f"l{i:05d}.safetensors"
        if i < distinct:
            save_file(lora(i, rank), path)
        else:
            os.link(folder / f"l{i % distinct:05d}.safetensors", path)


def write_hdf5(path: Path, n: int, rank: int) -> None:
    """One dataset [n, a, b] per tensor."""
    import h5py

    with h5py.File(path, "w") as f:
        for i in range(n):
            for name, x in lora(i, rank).items():
                if name not in f:
                    f.create_dataset(name, (n, *x.shape), "f4")
                f[name][i] = x


def write_table(folder: Path, n: int, rank: int) -> None:
    """A `datasets` table as `save_to_disk` writes it: one column of nested lists per tensor."""
    import pyarrow as pa
    from datasets import Dataset

    loras = [lora(i, rank) for i in range(n)]
    columns = {}
    for name, first in loras[0].items():
        values = pa.array(np.concatenate([x[name].ravel() for x in loras]))
        inner = pa.ListArray.from_arrays(_ends(len(values), first.shape[1]), values)
        columns[name] = pa.ListArray.from_arrays(_ends(len(inner), first.shape[0]), inner)
    Dataset(pa.table(columns)).save_to_disk(str(folder))


def _ends(n: int, step: int):
    import pyarrow as pa

    return pa.array(np.arange(0, n + 1, step, dtype=np.int32))
