"""What stands between the numbers of a source and an estimator, one step after the other.

A step is a function of rows with arrays of its own. Fits and kept models use the same ones. One that is
affine can be folded into a linear model behind it (`lift`), which then reads the numbers as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.splits import Rows

Matrix = NDArray[np.float64]
Planes = tuple[Matrix, Matrix]  # weights [c, columns] and intercepts [c] of linear models


class Step(Protocol):
    """Rows to rows; name: of the step in a file."""

    name: ClassVar[str]

    def __call__(self, rows: Any) -> Any: ...


class Affine(Step, Protocol):
    """A step that linear models behind it can take in."""

    def lift(self, weights: Matrix, intercepts: Matrix) -> Planes:
        """The same models on what the step reads."""
        ...


@dataclass(frozen=True)
class Scaled:
    """(x - mean) / scale, both [d]."""

    name: ClassVar[str] = "scaled"
    mean: Matrix
    scale: Matrix

    def __call__(self, rows: Matrix) -> Matrix:
        found = np.asarray(rows, np.float64) - self.mean
        found /= self.scale
        return found

    def lift(self, weights: Matrix, intercepts: Matrix) -> Planes:
        lifted = weights / self.scale
        return lifted, intercepts - lifted @ self.mean


@dataclass(frozen=True)
class Components:
    """Principal components, the leading ones first: components [m, d], mean [d]."""

    name: ClassVar[str] = "components"
    components: Matrix
    mean: Matrix

    def __call__(self, rows: Matrix) -> Matrix:
        return rows @ self.components.T - self.mean @ self.components.T

    def lift(self, weights: Matrix, intercepts: Matrix) -> Planes:
        lifted = weights @ self.components[: weights.shape[1]]
        return lifted, intercepts - lifted @ self.mean


@dataclass(frozen=True)
class Projected:
    """One column: the rows along a direction [d]."""

    name: ClassVar[str] = "projected"
    direction: Matrix

    def __call__(self, rows: Matrix) -> Matrix:
        return (rows @ self.direction)[:, None]

    def lift(self, weights: Matrix, intercepts: Matrix) -> Planes:
        return weights * self.direction, intercepts


@dataclass(frozen=True)
class Rotated:
    """Coordinates along orthonormal columns `axes` [d, r] from `mean` [d]; one column of zeros where
    there are none."""

    name: ClassVar[str] = "rotated"
    axes: Matrix
    mean: Matrix

    def __call__(self, rows: Matrix) -> Matrix:
        if not self.axes.shape[1]:
            return np.zeros((len(rows), 1))
        return np.asarray((rows - self.mean) @ self.axes)

    def lift(self, weights: Matrix, intercepts: Matrix) -> Planes:
        if not self.axes.shape[1]:
            return np.zeros((len(weights), len(self.mean))), intercepts
        lifted = weights @ self.axes.T
        return lifted, intercepts - lifted @ self.mean


@dataclass(frozen=True)
class Chosen:
    """The latents of these numbers [k], in this order, of sparse codes or of a dense matrix."""

    name: ClassVar[str] = "chosen"
    latents: Rows

    def __call__(self, rows: Any) -> Matrix:
        if hasattr(rows, "columns"):
            return np.asarray(rows.columns(self.latents), np.float64)
        return np.asarray(rows, np.float64)[:, self.latents]


@dataclass(frozen=True)
class Fired:
    """1 where a magnitude is over `over`, 0 elsewhere."""

    name: ClassVar[str] = "fired"
    over: Matrix

    def __call__(self, rows: Matrix) -> Matrix:
        return (np.abs(rows) > self.over).astype(np.float64)


@dataclass(frozen=True)
class LastTokens:
    """Only the last `most` tokens of each row (`tokens.Ragged`)."""

    name: ClassVar[str] = "last_tokens"
    most: Rows

    def __call__(self, rows: Any) -> Any:
        return rows.rows(np.arange(rows.shape[0]), int(self.most))


@dataclass(frozen=True)
class Units:
    """Features of LoRA weights, standardised by unit as `scaling` does it.

    low, high: ends that values are cut to [p]; mean: of the train rows, and factor: one over their
    standard deviation, 0 in a column that says nothing, both float32 [p]; unit: of each column [p], or
    [0] where no unit is looked at.
    """

    name: ClassVar[str] = "units"
    low: Matrix
    high: Matrix
    mean: NDArray[np.float32]
    factor: NDArray[np.float32]
    unit: Rows

    @classmethod
    def as_they_are(cls, p: int) -> Units:
        """Nothing is cut or scaled."""
        zeros, ones = np.zeros(p, np.float32), np.ones(p, np.float32)
        return cls(np.full(p, -np.inf), np.full(p, np.inf), zeros, ones, np.zeros(0, np.int64))

    def __call__(self, rows: Any) -> NDArray[np.float32]:
        """rows: `sources.features.Features`, whose mask says which units an item has."""
        x = np.clip(rows.x, self.low, self.high).astype(np.float32)
        x -= self.mean
        if len(self.unit):
            x[~rows.mask[:, self.unit]] = 0
        x *= self.factor
        return x


_STEPS: dict[str, Any] = {
    s.name: s for s in (Scaled, Components, Projected, Rotated, Chosen, Fired, LastTokens, Units)
}


def arrays_of(steps: Sequence[Step]) -> dict[str, NDArray[Any]]:
    """The arrays of steps, by the step's number and the name of the field."""
    return {
        f"{n}.{field.name}": np.asarray(getattr(step, field.name))
        for n, step in enumerate(steps)
        for field in fields(step)  # type: ignore[arg-type]
    }


def made(names: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> list[Step]:
    """The steps of these names with their arrays. Raises KeyError for what does not exist."""
    return [
        _STEPS[name](**{f.name: arrays[f"{n}.{f.name}"] for f in fields(_STEPS[name])})
        for n, name in enumerate(names)
    ]


def through(steps: Sequence[Step], rows: Any) -> Any:
    """Rows after all of the steps."""
    for step in steps:
        rows = step(rows)
    return rows


def lifted(steps: Sequence[Affine], weights: Matrix, intercepts: Matrix) -> Planes:
    """Linear models on what the first of the steps reads."""
    for step in reversed(steps):
        weights, intercepts = step.lift(weights, intercepts)
    return weights, intercepts
