"""Hyperparameters to try: lists, evenly spaced values, and seeded draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from actprobe.probes.methods import How, Params, Shape


def values(grid: Any) -> list[Any]:
    """The values of a protocol's grid: a list, or {logspace|linspace: [start, stop, number]}."""
    if isinstance(grid, Mapping):
        [(kind, (start, stop, number))] = grid.items()
        return getattr(np, kind)(start, stop, num=number).tolist()
    return list(grid)


def spread(top: int) -> list[int]:
    """At most ten whole numbers from 1 to `top`, evenly spaced on a log scale, cut to integers."""
    return np.unique(np.logspace(0, np.log2(top), num=10, base=2, dtype=int)).tolist()


def penalties(how: How, shape: Shape, seed: int) -> list[Params]:
    """C, or C · C_rows / n with `C_rows`."""
    scale = how.get("C_rows", shape.n) / shape.n
    return [{"C": c * scale} for c in values(how["C"])]


def draws(choice: Callable[[int], Callable[[Sequence[Any]], Any]]) -> Callable[..., list[Params]]:
    """A grid of `draws` random points of `space`, with choice(seed) to draw one value of a list."""

    def grid(how: How, shape: Shape, seed: int) -> list[Params]:
        space = [(s["param"], values(s["values"])) for s in how["space"]]
        choose = choice(seed)
        return [{name: choose(v) for name, v in space} for _ in range(how["draws"])]

    return grid


def python_choice(seed: int) -> Callable[[Sequence[Any]], Any]:
    return random.Random(seed).choice


def numpy_choice(seed: int) -> Callable[[Sequence[Any]], Any]:
    legacy = np.random.RandomState(seed)
    return lambda options: options[legacy.randint(len(options))]
