"""Probe families: what a method entry of a protocol names, registered by name with one signature.

    @method("nearest_mean", kinds=CLASSES)
    def nearest_mean(how, params, seed):
        return NearestCentroid(**params)

The function returns an unfitted estimator of scikit-learn's form (`fit`, `predict`, and for classes
`predict_proba` or `decision_function`). `how` is the method's entry in the protocol, `params` one point
of its grid. A family with a search of its own takes a `search.Task` instead and returns a
`search.Fitted` (`own_search`). Everything runs in float64.

`keep` says what reproduces the scores of a fit: a function (fitted, task) -> `keep.Kept`, of which
`keep.fold` has some (`fold.linear` for an estimator with `coef_` and `intercept_`). Fits of a family
without it keep the scores of their rows, and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from actprobe.base.errors import ConfigError
from actprobe.probes.kinds import BINARY, CLASSES, CONTINUOUS, KINDS

How = Mapping[str, Any]
Params = dict[str, Any]


class Shape(NamedTuple):
    """Of a train matrix: rows, columns, and rows of the smallest fold's fit part."""

    n: int
    d: int
    smallest_fit: int


@dataclass(frozen=True)
class Family:
    """make(how, params, seed) -> estimator, or make(task) -> Fitted with `own_search`; grid(how, shape,
    seed) -> hyperparameters to try, in order (the first of the best wins); kinds: of labels;
    keep(fitted, task) -> Kept, or None."""

    name: str
    kinds: tuple[str, ...]
    make: Callable[..., Any]
    grid: Callable[[How, Shape, int], list[Params]]
    own_search: bool
    keep: Callable[..., Any] | None = None


# Light: the plan asks for kinds without importing what fits. Name -> module of this folder, kinds.
_BUILT_IN: dict[str, tuple[str, tuple[str, ...]]] = {
    "logreg": ("linear", CLASSES),
    "svm": ("linear", CLASSES),
    "ridge": ("linear", KINDS),
    "lda": ("discriminant", CLASSES),
    "pca": ("linear", CLASSES),
    "knn": ("neighbours", KINDS),
    "xgboost": ("trees", KINDS),
    "tree": ("trees", KINDS),
    "mlp": ("networks", KINDS),
    "ridge_path": ("ridge_path", CLASSES),
    "stopped_mlp": ("stopped_mlp", CLASSES),
    "direction": ("directions", (BINARY,)),
    "text_length": ("texts", (BINARY,)),
    "tfidf": ("texts", (BINARY,)),
    "attention": ("attention", (BINARY,)),
}
_REGISTERED: dict[str, Family] = {}


def method(
    name: str,
    *,
    kinds: Iterable[str] | None = None,
    grid: Callable[[How, Shape, int], list[Params]] | None = None,
    own_search: bool = False,
    keep: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a family of probes; see `Family`.

    Without `grid` the protocol's entry lists the values of each hyperparameter in its own `grid`.
    Raises ConfigError for a name that is taken.
    """

    def register(make: Callable[..., Any]) -> Callable[..., Any]:
        built_in = _BUILT_IN.get(name)
        ours = built_in is not None and make.__module__.startswith(f"{__name__}.")
        known = _REGISTERED.get(name)
        if not ours and (built_in or (known and known.make.__module__ != make.__module__)):
            raise ConfigError(f"method family {name!r} is taken; call it differently")
        of = tuple(kinds) if kinds is not None else built_in[1] if built_in else CLASSES
        _REGISTERED[name] = Family(name, of, make, grid or _product, own_search, keep)
        return make

    return register


def family(name: str) -> Family:
    """The family of this name. Raises ConfigError for one that nobody has registered."""
    if name in _BUILT_IN and name not in _REGISTERED:
        import_module(f"{__name__}.{_BUILT_IN[name][0]}")
    if name not in _REGISTERED:
        raise ConfigError(
            f"unknown method family {name!r}; expected one of {', '.join(sorted(families()))}"
        )
    return _REGISTERED[name]


def families() -> dict[str, tuple[str, ...]]:
    """Label kinds of every family by its name; light."""
    return {n: k for n, (_, k) in _BUILT_IN.items()} | {n: f.kinds for n, f in _REGISTERED.items()}


def fits_kind(how: How, kind: str) -> bool:
    """Whether a method entry of a protocol fits labels of this kind."""
    if kind != BINARY and (
        how.get("project") == "mean_difference" or how.get("ranking") in ("a", "b")
    ):
        return False
    if kind == CONTINUOUS and how.get("tiny_scores") == "unscaled":
        return False
    return kind in families().get(how["family"], ())


def _product(how: How, shape: Shape, seed: int) -> list[Params]:
    """Every combination of the values that `grid` of the entry lists, the last name varying first."""
    from actprobe.probes.methods.grids import values

    found: list[Params] = [{}]
    for name, grid in (how.get("grid") or {}).items():
        found = [{**params, name: v} for params in found for v in values(grid)]
    return found
