"""Multilayer perceptrons."""

from __future__ import annotations

from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from actprobe.probes.keep import fold
from actprobe.probes.kinds import CONTINUOUS
from actprobe.probes.methods import How, Params, method
from actprobe.probes.methods.grids import draws, numpy_choice


@method("mlp", grid=draws(numpy_choice), keep=fold.perceptron)
def mlp(how: How, params: Params, seed: int) -> Any:
    """Values are standardised for the fit, and predicted in their own unit."""
    kind = MLPRegressor if how["kind"] == CONTINUOUS else MLPClassifier
    network = kind(**how["solver"], **params, random_state=seed)
    if how["kind"] == CONTINUOUS:
        return TransformedTargetRegressor(network, transformer=StandardScaler())
    return network
