"""Random sketches of W and of its column and row spaces, the same for every LoRA of a module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.families.weights import Array, Weights


def compute(modules: Sequence[str], w: Weights, sketch: int, projector: int) -> NDArray[np.float32]:
    """Sketch family of m modules, [m, sketch² + projector·(projector + 1)].

    First Roᵀ·W·Ri, row by row: linear in W. Then, for the singular vectors U, V of W, the upper
    triangles of Z·Zᵀ with Z = RᵀU and Z = RᵀV: what directions W writes to and reads from,
    whatever the signs, the order and the sizes of its singular values, and in every gauge.
    modules: names, [m]; equal ones stand together.
    """
    out, into = (
        np.concatenate(
            [
                _project(x[rows], projection(name, side, x.shape[2], sketch + projector))
                for name, rows in _runs(modules)
            ]
        )
        for x, side in ((w.b, "out"), (w.a, "in"))
    )
    product = out[:, :, :sketch].transpose(0, 2, 1) @ into[:, :, :sketch] * w.scale[:, None, None]
    upper = np.triu_indices(projector)
    sides = []
    for vectors, side in ((w.left, out), (w.right, into)):
        z = vectors @ side[:, :, sketch:]
        sides.append((z.transpose(0, 2, 1) @ z)[:, *upper])
    return np.column_stack([product.reshape(len(product), -1), *sides]).astype(np.float32)


def _project(x: Array, r: Array) -> Array:
    """x @ r for x [k, rank, n] in one product: k small ones take twice as long."""
    return (x.reshape(-1, x.shape[2]) @ r).reshape(*x.shape[:2], -1)


def _runs(names: Sequence[str]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, run in groupby(names):
        stop = start + len(list(run))
        yield name, slice(start, stop)
        start = stop


@lru_cache(maxsize=512)
def _signs(module: str, side: str, n: int, p: int) -> NDArray[np.int8]:
    digest = hashlib.sha256(f"{module}\0{side}".encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    words = stream.random_raw(-(-n * p // 64)).astype("<u8")
    return np.unpackbits(words.view(np.uint8), count=n * p).reshape(n, p).astype(np.int8) * 2 - 1


def projection(module: str, side: str, n: int, p: int) -> Array:
    """Random matrix [n, p] of ±1/√p (Achlioptas 2003), drawn from the hash of the whole module name.

    The raw stream of the Philox counter is the same in every process and version.
    """
    drawn: Array = _signs(module, side, n, p) / np.sqrt(p)
    return drawn
