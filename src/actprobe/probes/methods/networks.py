"""Multilayer perceptrons."""

from __future__ import annotations

from typing import Any

from sklearn.neural_network import MLPClassifier, MLPRegressor

from actprobe.probes.kinds import CONTINUOUS
from actprobe.probes.methods import How, Params, method
from actprobe.probes.methods.grids import draws, numpy_choice


@method("mlp", grid=draws(numpy_choice))
def mlp(how: How, params: Params, seed: int) -> Any:
    kind = MLPRegressor if how["kind"] == CONTINUOUS else MLPClassifier
    return kind(**how["solver"], **params, random_state=seed)
