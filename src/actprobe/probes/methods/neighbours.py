"""The labels of the nearest train rows."""

from __future__ import annotations

from typing import Any

from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from actprobe.probes.keep import fold
from actprobe.probes.kinds import CONTINUOUS
from actprobe.probes.methods import How, Params, Shape, method
from actprobe.probes.methods.grids import spread


def _numbers(how: How, shape: Shape, seed: int) -> list[Params]:
    top = max(1, min(shape.n - 1, how["neighbours"], shape.smallest_fit))
    return [{"n_neighbors": k} for k in spread(top)]


@method("knn", grid=_numbers, keep=fold.neighbours)
def knn(how: How, params: Params, seed: int) -> Any:
    kind = KNeighborsRegressor if how["kind"] == CONTINUOUS else KNeighborsClassifier
    return kind(**params)
