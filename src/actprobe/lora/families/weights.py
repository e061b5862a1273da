"""What the families of W = s·B·A share: Gram matrices and canonical factors of many modules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.families.spectral import roots

Array = NDArray[np.float64]


@dataclass
class Weights:
    """m modules of one shape and rank.

    b: [m, r, d_out], the transposes of B; a: [m, r, d_in]; scale: [m]; roundings: `Rounding` of A
    and of B, [m, 2, 2]. Everything is computed in float64 and for s = 1: the families multiply by the
    power of s that a quantity needs.
    """

    b: Array
    a: Array
    scale: Array
    roundings: Array

    @cached_property
    def gram_b(self) -> Array:
        """BᵀB, [m, r, r]."""
        return self.b @ self.b.transpose(0, 2, 1)

    @cached_property
    def gram_a(self) -> Array:
        """AAᵀ, [m, r, r]."""
        return self.a @ self.a.transpose(0, 2, 1)

    @cached_property
    def noise(self) -> Array:
        """Largest singular value [m] of B·A that the rounding of B and A may have made.

        Errors are taken for uniform up to unit · |entry|: those of column k of B have a norm of about
        e·|b_k| with e = unit/√3, and are independent of those of other columns. With D = diag(|b_k|)
        they change B·A by about e·|D·A|, those of A by e·|B·D'|; both norms are bounded by the
        largest row sum of a Gram matrix. The bound does not depend on how the size of a column is
        shared out between B and A; random factors stay two to five times below it.
        """
        total = np.zeros(len(self.scale))
        for side, x, own, other in (
            (0, self.a, self.gram_a, self.gram_b), (1, self.b, self.gram_b, self.gram_a),
        ):  # fmt: skip
            unit, least = self.roundings[:, side].T
            size = np.sqrt(np.einsum("mii->mi", own) + x.shape[2] * least[:, None] ** 2)
            bound = (np.abs(other) * size[:, None, :]).sum(2) * size
            total += unit / np.sqrt(3) * np.sqrt(bound.max(1))
        return total

    @cached_property
    def _canonical(self) -> tuple[Array, Array, Array]:
        """Singular values of B·A (ascending, [m, r]) and the maps to its singular vectors.

        With BᵀB = VΛVᵀ and C = VΛ^½, B = Q·Cᵀ has orthonormal Q = BVΛ^-½; the eigenvectors u of
        Cᵀ(AAᵀ)C give the left singular vectors U = Qu and σ² as eigenvalues. Rows of `left` times
        Bᵀ are Uᵀ, rows of `right` times A are (right singular vectors)ᵀ = σ⁻¹UᵀBA. Directions
        with σ = 0, or with a σ that may be rounding alone, get rows of zeros.
        """
        lam, v = np.linalg.eigh(self.gram_b)
        root = roots(lam)
        c = v * root[:, None, :]
        squared, u = np.linalg.eigh(c.transpose(0, 2, 1) @ self.gram_a @ c)
        sigma = roots(squared, self.noise)
        left = u.transpose(0, 2, 1) * _inverse(root)[:, None, :] @ v.transpose(0, 2, 1)
        left *= (sigma > 0)[:, :, None]
        right = _inverse(sigma)[:, :, None] * (left @ self.gram_b)
        return sigma, left, right

    @property
    def sigma(self) -> Array:
        """Singular values of s·B·A, [m, r], descending."""
        return self._canonical[0][:, ::-1] * np.abs(self.scale)[:, None]

    @property
    def left(self) -> Array:
        """[m, r, r]: left @ b are the left singular vectors of W as rows (zeros where σ = 0)."""
        return self._canonical[1]

    @property
    def right(self) -> Array:
        """[m, r, r]: right @ a are the right singular vectors of W as rows."""
        return self._canonical[2]


def _inverse(x: Array) -> Array:
    return np.divide(1, x, out=np.zeros_like(x), where=x > 0)
