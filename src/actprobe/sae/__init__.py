"""SAEs: which latents a config asks for, how they are encoded, stored, read, ranked and exported.

`targets` is light; everything else is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.sae.kernel import prefer_avx512
from actprobe.sae.records import LatentArgs, LatentTarget, MadePlace, is_trained
from actprobe.sae.targets import SAES_VERSION, VERSION, targets

if TYPE_CHECKING:
    from actprobe.sae.export import save_benchmark, save_saelens, save_safetensors
    from actprobe.sae.latents import ClassSums, Latents, open_latents
    from actprobe.sae.latents_stage import run
    from actprobe.sae.pooling import open_pooled
    from actprobe.sae.ranking import rank, scores
    from actprobe.sae.saes_stage import make

_LAZY = {
    "ClassSums": "latents",
    "Latents": "latents",
    "make": "saes_stage",
    "open_latents": "latents",
    "open_pooled": "pooling",
    "rank": "ranking",
    "run": "latents_stage",
    "save_benchmark": "export",
    "save_saelens": "export",
    "save_safetensors": "export",
    "scores": "ranking",
}

__all__ = [
    "SAES_VERSION",
    "VERSION",
    "ClassSums",
    "LatentArgs",
    "LatentTarget",
    "Latents",
    "MadePlace",
    "is_trained",
    "make",
    "open_latents",
    "open_pooled",
    "prefer_avx512",
    "rank",
    "run",
    "save_benchmark",
    "save_saelens",
    "save_safetensors",
    "scores",
    "targets",
]

__getattr__ = lazy(__name__, _LAZY)
