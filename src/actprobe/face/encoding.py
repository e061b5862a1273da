"""New activations through the SAE of a run, by the code that encodes its datasets."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actprobe import sae
from actprobe.cache import plan, store
from actprobe.config import Config
from actprobe.sae.latents_stage import run


def encode(t: sae.LatentTarget, config: Config, x: NDArray[np.float32]) -> sae.Latents:
    """Latents [n, width] of activations x [n, d], in memory.

    t: the target of latents of the same SAE. Its stage runs on files in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="actprobe-latents-") as folder:
        given = f"{folder}/activations.h5"
        facts = store.read_header(t.args.activations)["facts"]
        arrays = {"x": x, "n_tokens": np.ones(len(x), np.int32)}
        spec = {"rows": "new"}
        store.publish([given], [store.write_h5(given, arrays, spec, facts)])
        new = replace(
            t,
            path=str(Path(folder) / Path(t.path).name),
            inputs=(given,),
            args=replace(t.args, activations=given),
        )
        batch = plan.Batch("new_rows", t.stage, t.loader, (new,))
        run(batch, config, 1)
        return sae.open_latents(new.path)
