"""All primitive families of a block of LoRAs in one pass: arrays in, arrays out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actprobe.lora.catalog import FAMILIES, sketch_columns
from actprobe.lora.families import fourier, order, product, sketch, spectral
from actprobe.lora.families.weights import Weights
from actprobe.lora.numbers import Floats, Rounding
from actprobe.lora.records import Sketch

Rows = NDArray[np.int64]
_SLICE = 1 << 17  # entries that are computed on at once: what fits the cache is fastest


class Factors(NamedTuple):
    """The factors of one module of one LoRA: down = A [r, d_in], up = B [d_out, r].

    roundings: of A and of B.
    """

    down: Floats
    up: Floats
    scale: float
    roundings: tuple[Rounding, Rounding] = (Rounding(), Rounding())


Lora = Mapping[str, Factors]  # by module name


def units(family: str, modules: Sequence[str]) -> list[str]:
    """Names of the units of a family over these modules, in column order."""
    if FAMILIES[family].unit == "factor":
        return [f"{m}:{side}" for m in modules for side in ("down", "up")]
    return list(modules)


def columns(family: str, sizes: Sketch) -> tuple[str, ...]:
    """Names of the columns of one unit of a family."""
    return FAMILIES[family].columns or sketch_columns(sizes.product, sizes.projector)


def primitives(
    loras: Sequence[Lora], modules: Sequence[str], families: Iterable[str], sizes: Sketch
) -> dict[str, tuple[Floats, NDArray[np.uint8]]]:
    """Primitives of a block of LoRAs: family -> (x [n, units, columns], mask [n, units]).

    Tensors of one shape are computed together. A module that a LoRA has not, or whose W is 0 in a
    product family (but for the rounding of its factors), has zeros and mask 0. Weights must be
    finite.
    """
    result = {}
    for f in families:
        shape = (len(loras), len(units(f, modules)), len(columns(f, sizes)))
        result[f] = (np.zeros(shape, np.float32), np.zeros(shape[:2], np.uint8))
    position = {m: i for i, m in enumerate(modules)}
    factor = [f for f in result if FAMILIES[f].unit == "factor"]
    if factor:
        for rows, unit, x, transposed, rounding in _factor_slices(loras, position):
            for f in factor:
                result[f][0][rows, unit] = _factor_family(f, x, transposed, rounding)
                result[f][1][rows, unit] = 1
    if len(factor) < len(result):
        for rows, names, w in _weight_slices(loras):
            at = rows, np.array([position[n] for n in names])
            there = w.sigma[:, 0] > 0
            for f in result.keys() - factor:
                x = (
                    product.compute(w)
                    if f == "product"
                    else sketch.compute(names, w, sizes.product, sizes.projector)
                )
                result[f][0][at] = np.where(there[:, None], x, 0)
                result[f][1][at] = there
    return result


def _factor_family(name: str, x: Floats, transposed: bool, rounding: NDArray[np.float64]) -> Floats:
    if name == "order":
        return order.compute(x.reshape(len(x), -1))
    if name == "spectral":
        return spectral.compute(x, transposed, rounding)
    return fourier.compute(x)


def _factor_slices(
    loras: Sequence[Lora], position: Mapping[str, int]
) -> Iterator[tuple[Rows, Rows, Floats, bool, NDArray[np.float64]]]:
    """Rows, units, stacked factors [m, r, n] of one shape, whether they are transposes, roundings.

    B is transposed, so that A and B have the long side last: only column and row sums tell.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, int, Floats, Rounding]]] = defaultdict(list)
    for row, lora in enumerate(loras):
        for name, (down, up, _, (of_down, of_up)) in lora.items():
            unit = 2 * position[name]
            groups[False, down.shape].append((row, unit, down, of_down))
            groups[True, up.shape].append((row, unit + 1, up, of_up))
    for (transposed, shape), members in groups.items():
        for part in _cut(members, shape[0] * shape[1]):
            rows, units, arrays, roundings = zip(*part, strict=True)
            yield (
                np.array(rows),
                np.array(units),
                _stacked(arrays, transposed, np.float32),
                transposed,
                np.array(roundings),
            )


def _weight_slices(loras: Sequence[Lora]) -> Iterator[tuple[Rows, list[str], Weights]]:
    """Rows, module names and factors of modules of one shape and rank, sorted by name."""
    groups: dict[tuple[Any, ...], list[tuple[str, int, Factors]]] = defaultdict(list)
    for row, lora in enumerate(loras):
        for name, f in lora.items():
            groups[f.down.shape, len(f.up)].append((name, row, f))
    for (shape, n_out), members in groups.items():
        members.sort(key=lambda m: m[:2])
        for part in _cut(members, shape[0] * (shape[1] + n_out)):
            names, rows, factors = zip(*part, strict=True)
            b = _stacked([f.up for f in factors], True, np.float64)
            a = _stacked([f.down for f in factors], False, np.float64)
            scale = np.array([f.scale for f in factors])
            roundings = np.array([f.roundings for f in factors])
            yield np.array(rows), list(names), Weights(b, a, scale, roundings)


def _stacked(matrices: Sequence[Floats], transposed: bool, dtype: Any) -> Any:
    """Matrices of one shape [a, b], or their transposes, as one array [m, a, b]."""
    x = np.concatenate(matrices).reshape(len(matrices), *matrices[0].shape)
    return np.ascontiguousarray(x.transpose(0, 2, 1) if transposed else x, dtype)


def _cut(members: list[Any], entries: int) -> Iterator[list[Any]]:
    step = max(1, _SLICE // entries)
    for start in range(0, len(members), step):
        yield members[start : start + step]
