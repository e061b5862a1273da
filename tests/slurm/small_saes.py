"""SAEs of 64 latents for the tiny model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SHAPES = {"W_enc": (16, 64), "W_dec": (64, 16), "b_enc": (64,), "b_dec": (16,)}
CFG = (
    '{"architecture": "standard", "d_in": 16, "d_sae": 64, "dtype": "float32",'
    ' "metadata": {"sae_lens_version": "6.5.0"}}'
)


def save(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Write the SAEs into folders of these names; returns their config entries."""
    rng = np.random.default_rng(0)
    weights = {k: rng.standard_normal(v).astype("f4") for k, v in SHAPES.items()}
    entries = {}
    for name in names:
        (folder / name).mkdir()
        save_file(weights, folder / name / "sae_weights.safetensors")
        (folder / name / "cfg.json").write_text(CFG)
        entries[name] = {"source": name, "model": "tiny", "site": "resid_post.1"}
    return entries
