"""Numbers that say how good a probe is on its test rows, each a function registered by name.

    @metric("acc", kinds=CLASSES, label="accuracy")
    def accuracy(y, scores, predicted): ...

A registered metric is a column `test_{name}` of the table of results, null for rows of another label
kind, and by that alone known to summaries, figures and the page. Of each kind one metric is the main
one: it chooses hyperparameters on validation rows, and is what comparisons compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actprobe.base.errors import ConfigError
from actprobe.config import nearest
from actprobe.probes.kinds import BINARY, CONTINUOUS, KINDS, MULTICLASS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]

MAIN = {BINARY: "auc", MULTICLASS: "auc", CONTINUOUS: "r2"}
_BUILT_IN = ("binary", "multiclass", "low_fpr", "continuous")


@dataclass(frozen=True)
class Metric:
    """A number of a fit.

    name: of its column, behind `test_`; label: in words; kinds: of labels that it is for; low, high:
    its range; higher: whether more is better. function(y, scores, predicted): y [n] are 0/1, class
    numbers, or values; scores [n] (binary: of class 1; continuous: predictions) or [n, classes];
    predicted [n]. NaN where it is not defined.
    """

    name: str
    label: str
    kinds: tuple[str, ...]
    low: float
    high: float
    higher: bool
    function: Callable[[Numbers, Numbers, Numbers], float]

    @property
    def column(self) -> str:
        return f"test_{self.name}"


_REGISTERED: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    label: str,
    kinds: tuple[str, ...] = KINDS,
    low: float = 0.0,
    high: float = 1.0,
    higher: bool = True,
) -> Callable[[Callable[[Numbers, Numbers, Numbers], float]], Any]:
    """Register a function as a metric; see `Metric`. Raises ConfigError for a name that is taken."""

    def register(function: Callable[[Numbers, Numbers, Numbers], float]) -> Any:
        known = _REGISTERED.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise ConfigError(f"metric {name!r} is taken; call it differently")
        _REGISTERED[name] = Metric(name, label, tuple(kinds), low, high, higher, function)
        return function

    return register


def registered() -> tuple[str, ...]:
    """Names that are registered so far; light."""
    return tuple(_REGISTERED)


@cache
def _import_built_in() -> None:
    for module in _BUILT_IN:
        import_module(f"{__name__}.{module}")


def all_metrics() -> dict[str, Metric]:
    """Every registered metric by name, those of this room first, in one order whoever imported what."""
    _import_built_in()
    own = [f"{__name__}.{module}" for module in _BUILT_IN]
    place = {module: i for i, module in enumerate(own)}
    known = sorted(
        _REGISTERED.items(), key=lambda item: place.get(item[1].function.__module__, len(own))
    )
    return dict(known)


def main_metric(kind: str, name: str | None = None) -> Metric:
    """The metric that hyperparameters of this label kind are chosen by, and fits compared by.

    name: that which a protocol selects. Raises ConfigError for one that nobody has registered, of which
    less is better, or that is not for this label kind.
    """
    _import_built_in()
    name = name or MAIN[kind]
    found = _REGISTERED.get(name)
    if found is None or kind not in found.kinds or not found.higher:
        fitting = [n for n, m in all_metrics().items() if kind in m.kinds and m.higher]
        raise ConfigError(
            f"select: {kind} labels have no metric {name!r}; {nearest(name, fitting)}"
        )
    return found


def measure(kind: str, y: Numbers, scores: Numbers, predicted: Numbers) -> dict[str, float]:
    """All metrics of a label kind: column -> value."""
    found = (m for m in all_metrics().values() if kind in m.kinds)
    return {m.column: float(m.function(y, scores, predicted)) for m in found}


def main(
    kind: str,
    y: Numbers,
    scores: Numbers,
    name: str | None = None,
    predicted: Numbers | None = None,
) -> float:
    """The main metric of these scores; NaN where it is not defined, as where a class is missing.

    name: of another main metric, where a protocol selects one, for which `predicted` may be needed.
    """
    if not len(y):
        return math.nan
    found = main_metric(kind, name)
    return float(found.function(y, scores, scores if predicted is None else predicted))
