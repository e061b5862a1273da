"""GGUF: models of llama.cpp's format, converted once into weights that transformers reads.

`targets` and what a plan sees are light; `convert.run` makes a batch.
"""

from __future__ import annotations

from actprobe.models.gguf.architectures import ARCHITECTURES
from actprobe.models.gguf.parts import find, named
from actprobe.models.gguf.targets import (
    STAGE,
    VERSION,
    anywhere,
    described,
    targets,
    weights_target,
)

__all__ = [
    "ARCHITECTURES",
    "STAGE",
    "VERSION",
    "anywhere",
    "described",
    "find",
    "named",
    "targets",
    "weights_target",
]
