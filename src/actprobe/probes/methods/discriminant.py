"""Fisher's linear discriminant."""

from __future__ import annotations

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from actprobe.probes.keep import fold
from actprobe.probes.methods import How, Params, Shape, method
from actprobe.probes.methods.grids import values


def _shrinkages(how: How, shape: Shape, seed: int) -> list[Params]:
    return [{"shrinkage": s} for s in values(how["shrinkage"])]


@method("lda", grid=_shrinkages, keep=fold.linear)
def lda(how: How, params: Params, seed: int) -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(**how["solver"], **params)
