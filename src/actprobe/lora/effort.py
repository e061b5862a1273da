"""How long classifiers will take: operations over measured rates, known while the plan is made.

Right within a factor of about three where the collection has the modules of Stable Diffusion 1.5's
attention; files are not opened to plan, so their modules are a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from actprobe.lora.catalog import EVERY_LAYER, REPRESENTATIONS

MODULES = 64
_CLASSES = 10
_PER_FIT = 0.05  # CPU s of reading, scaling and scoring
# Operations in a CPU second of one thread, float32.
_LINEAR, _PRODUCT, _NETWORK, _SORTED = 1e10, 5e10, 3e10, 1e8
_PASSES, _EPOCHS = 100, 50  # of a solver over all C; of an early-stopped network


def columns(representation: str, sketch: Mapping[str, int]) -> int:
    """Columns of one LoRA in a representation, about."""
    view = REPRESENTATIONS[representation]
    if view.parts:
        return sum(columns(p, sketch) for p in view.parts)
    projector = sketch["projector"] * (sketch["projector"] + 1) // 2
    by_config = {
        "product_sketch": sketch["product"] ** 2,
        "left_projector": projector,
        "right_projector": projector,
    }
    width = by_config.get(representation, view.width)
    return width * MODULES * (2 if view.unit == "factor" else 1)


def seconds(how: Mapping[str, Any], method: str, n: int, width: int, subset: str) -> float:
    """CPU seconds of all runs of a protocol's method on n LoRAs with `width` columns."""
    rule, fits = how["methods"][method], len(how["seeds"])
    if subset == EVERY_LAYER:
        fits, width = fits * MODULES, width // MODULES
    if rule["family"] == "ridge":
        m = min(n, width)
        one = (2 * n * width * m + 10 * m**3) / _PRODUCT
    elif rule["family"] == "tree":
        one = len(rule["depth"]) * n * width * math.log2(n + 2) / _SORTED
    elif rule["family"] == "mlp":
        sizes = [width, *rule["hidden"]]
        weights = sum(a * b for a, b in pairwise(sizes))
        one = 6 * _EPOCHS * n * weights / _NETWORK
    else:
        one = 4 * _PASSES * n * width * _CLASSES / _LINEAR
    return fits * (_PER_FIT + one)
