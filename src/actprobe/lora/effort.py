"""How wide representations are, known while the plan is made.

Files are not opened to plan, so their modules are a guess: those of Stable Diffusion 1.5's attention.
"""

from __future__ import annotations

from collections.abc import Mapping

from actprobe.lora.catalog import REPRESENTATIONS

MODULES = 64


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
