"""How a memory limit becomes blocks of latents and groups of rows."""

from __future__ import annotations

from dataclasses import dataclass

from actprobe.base.errors import ConfigError
from actprobe.sae.pieces import COLUMNS, ROWS, WAITING
from actprobe.sae.weights import Weights

_BASE = 220 << 20  # bytes of Python, NumPy, SciPy and h5py with their buffers
_TORCH = 250 << 20  # bytes that importing torch adds
_MAX_BLOCK = 4 * COLUMNS
_VECTORS = 6  # float32 vectors over all latents: biases, thresholds, norms and their copies
_TILE = 24 * ROWS * COLUMNS  # product, masks and entries of a tile, even where it is not sparse


@dataclass(frozen=True)
class Sizes:
    """block: latents read at a time, a multiple of COLUMNS; rows: encoded in one pass over the
    SAE, a multiple of ROWS."""

    block: int
    rows: int


def sizes(limit: int, weights: Weights, torch: bool) -> Sizes:
    """A block of up to four tiles in at most a quarter of the memory; the rest is for rows.

    limit: bytes. torch: the engine needs it. A latent costs its weights in float32, and in 16 bits
    besides where the file has them so; a row its activations in float32 and, for a top k, its best
    entries. Raises ConfigError saying how much is needed.
    """
    sae = weights.sae
    column = sae.d_in * (4 if weights.encoder.itemsize == 4 else 4 + weights.encoder.itemsize)
    row = 4 * sae.d_in + 8 * (sae.k or 0)
    fixed = _BASE + _TORCH * torch + 4 * _VECTORS * sae.d_sae + _TILE + WAITING
    fixed += ROWS * (12 * sae.d_in + 64 * (sae.k or 0))  # one tile while it is prepared or chosen
    needed = fixed + COLUMNS * column + ROWS * row
    if limit < needed:
        raise ConfigError(
            f"max_memory: {limit / 1e6:,.0f} MB; {sae.weights} (d_in {sae.d_in}, {sae.d_sae} "
            f"latents) needs at least {needed / 1e6:,.0f} MB"
        )
    spare = limit - fixed
    width = -(-sae.d_sae // COLUMNS) * COLUMNS
    block = min(_MAX_BLOCK, width, max(COLUMNS, spare // 4 // column // COLUMNS * COLUMNS))
    return Sizes(block, max(ROWS, (spare - block * column) // row // ROWS * ROWS))
