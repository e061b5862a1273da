"""Rotary factors that a GGUF file holds as tensors, in a config's words.

Llama 3 scales slow rotations down. Its config has four numbers for that, a file the factors that they
give: they are found by comparing. Phi-3 has a list of factors for short texts and one for long texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Header
from actprobe.models.gguf.stated import INSTEAD

if TYPE_CHECKING:
    import numpy as np

TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LOW, _HIGH, _BEFORE = 1.0, 4.0, 8192  # of every Llama since 3.1
_CLOSE = 1e-5


def complete(
    config: dict[str, Any], header: Header, read: Callable[[str], np.ndarray], what: str
) -> dict[str, Any]:
    """The config with the factors in it.

    read: float32 values of a tensor. Raises BadInput for factors that no config can say.
    """
    given = [name for name in TENSORS if name in header.tensors]
    if not given:
        return config
    rope = config.get("rope_parameters", {})
    if given == ["rope_freqs.weight"] and rope.get("rope_type") == "default":
        found = _llama3(read(given[0]).tolist(), rope["rope_theta"], config["head_dim"])
        if found is not None:
            return {**config, "rope_parameters": {**rope, **found}}
    elif given == list(TENSORS[1:]) and config["model_type"] == "phi3":
        long, short = (read(name).tolist() for name in given)
        key = "original_max_position_embeddings"
        more = {
            "rope_type": "longrope",
            "long_factor": long,
            "short_factor": short,
            key: config[key],
        }
        return {**config, "rope_parameters": {**rope, **more}}
    raise BadInput(
        f"{what}: the rotary factors in {', '.join(given)} are none that transformers knows for "
        f"{config['model_type']}; {INSTEAD}"
    )


def _llama3(factors: list[float], theta: float, width: int) -> dict[str, Any] | None:
    """The scaling of Llama 3 that gives these factors; None if none does."""
    factor = float(f"{max(factors):.6g}")
    if len(factors) != width // 2 or factor < 1:
        return None
    for i, found in enumerate(factors):
        wave = 2 * math.pi * theta ** (2 * i / width)
        if wave < _BEFORE / _HIGH:
            expected = 1.0
        elif wave > _BEFORE / _LOW:
            expected = factor
        else:
            smooth = (_BEFORE / wave - _LOW) / (_HIGH - _LOW)
            expected = 1 / ((1 - smooth) / factor + smooth)
        if abs(found - expected) > _CLOSE * expected:
            return None
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": _LOW, "high_freq_factor": _HIGH,
            "original_max_position_embeddings": _BEFORE}  # fmt: skip
