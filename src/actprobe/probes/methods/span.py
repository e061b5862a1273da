"""The space that rows span: a linear method finds its weights in it, at the cost of the rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Rows in the space that they span.

    z: their centred coordinates [n, r]; axes: orthonormal columns [d, r], None where r = d is the
    space itself.
    """

    z: Matrix
    axes: Matrix | None
    d: int

    def lift(self, w: Matrix) -> Matrix:
        """Directions [..., r] in these coordinates as directions [..., d]."""
        return w if self.axes is None else w @ self.axes.T


def span(x: Matrix) -> Span:
    """The space of the rows x [n, d], from the eigenvectors of their centred Gram matrix.

    An L2-penalised linear model with a free intercept has its optimum there (Hastie, Tibshirani,
    Friedman, The Elements of Statistical Learning, section 18.3.5).
    """
    n, d = x.shape
    centred = x - x.mean(axis=0)
    if n > d:
        return Span(centred, None, d)
    size, vectors = np.linalg.eigh(centred @ centred.T)
    kept = size > 1e-12 * max(size[-1], 1e-300)
    length, vectors = np.sqrt(size[kept]), vectors[:, kept]
    return Span(vectors * length, centred.T @ (vectors / length), d)
