"""What training an SAE holds in memory: known before anything is loaded, and the same for every run."""

from __future__ import annotations

from actprobe.sae.records import Training

POOL = 1 << 16  # tokens shuffled together; a constant, so that results do not depend on memory
FIRST = 1 << 14  # tokens that set the scale of the activations
MASSIVE = 10  # a row whose norm is so many times the median carries a massive activation
HELD = 1 << 12  # held-out tokens that the loss is measured on
_BASE = 300 << 20  # bytes of Python and its libraries


def training_bytes(d: int, train: Training) -> int:
    """Bytes that training needs on activations of width d."""
    weights = 2 * train.width * d
    tokens = (2 * POOL + 3 * FIRST + 2 * HELD + 8 * train.batch_size) * d
    return _BASE + 4 * (6 * weights + tokens) + 12 * train.batch_size * train.width
