"""A file of a user's own and a protocol that uses it: a method and a metric that the project lacks."""

from __future__ import annotations

import textwrap
from pathlib import Path

_CODE = """
    import numpy as np
    from sklearn.neighbors import NearestCentroid

    from actprobe.probes.kinds import BINARY, CLASSES
    from actprobe.probes.methods import method
    from actprobe.probes.metrics import metric


    @method("nearest_meanTAG", kinds=CLASSES)
    def nearest_mean(how, params, seed):
        return NearestCentroid(**params)


    @metric("missesTAG", kinds=(BINARY,), label="missed rows of class 1", higher=False)
    def misses(y, scores, predicted):
        return float(np.mean(predicted[y == 1] == 0))
"""
_PROTOCOL = """
    name: mineTAG
    description: with a method of my own
    extends: BASE
    methods:
      own:
        family: nearest_meanTAG
        reads: activations
        scaler: standard
        grid: {shrink_threshold: [0.01, 0.5]}
        tiny: {}
"""


def write(folder: Path, tag: str = "", base: str = "actprobe-1") -> tuple[Path, Path]:
    """mine{tag}.py and mine{tag}.yaml: method `own`, metric `misses{tag}`. tag: of all names, which a
    process knows once."""
    code, protocol = folder / f"mine{tag}.py", folder / f"mine{tag}.yaml"
    code.write_text(textwrap.dedent(_CODE).replace("TAG", tag))
    protocol.write_text(textwrap.dedent(_PROTOCOL).replace("TAG", tag).replace("BASE", base))
    return code, protocol
