"""What can be computed from LoRA weights: primitive families and the representations made of them.

Light: names, versions and columns only. Families are computed in `families/`, views in `views.py`.
Raise a version when the numbers change: a family's makes its primitives and the representations
over them stale, a representation's that representation alone.
"""

from __future__ import annotations

from dataclasses import dataclass

SIGMAS = 16  # singular values that are kept; a fixed width, so that it tells no rank
QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
BINS = 50
LARGEST = 10  # Fourier magnitudes, and singular values of `spectral`
NORM_QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)


@dataclass(frozen=True)
class Family:
    """Primitives that are computed together.

    unit: "factor" (each of A and B, units `module:down`, `module:up`) or "product" (W, units
    `module`). columns: names per unit; empty where the config decides (`sketch_columns`). scaled:
    depends on the scale of W. cost: CPU time relative to that of `spectral`.
    """

    name: str
    version: int
    unit: str
    columns: tuple[str, ...] = ()
    scaled: bool = False
    cost: float = 1.0


def _numbered(name: str, n: int) -> tuple[str, ...]:
    return tuple(f"{name}{i + 1}" for i in range(n))


_QUANTILE_NAMES = tuple(f".{round(q * 100):02d}" for q in QUANTILES)
FAMILIES = {
    f.name: f
    for f in (
        Family(
            "order",
            1,
            "factor",
            (*_QUANTILE_NAMES, "lower_median", "min", "max", "mean", "std", "skew", "kurt", "mad",
             "entropy", "frobenius"),
            cost=2.5,
        ),
        Family(
            "spectral",
            2,
            "factor",
            (*_numbered("sigma", SIGMAS), "nuclear", "max_col_sum", "max_row_sum"),
        ),
        Family(
            "fourier",
            1,
            "factor",
            (*_numbered("magnitude", LARGEST), "mean", "std", "energy_share"),
            cost=1.5,
        ),
        Family(
            "product",
            2,
            "product",
            (*_numbered("sigma", SIGMAS), "nuclear", "frobenius", "stable_rank", "effective_rank",
             "mean", "std", "skew", "kurt",
             *(f"row_norm_q{q:.2f}" for q in NORM_QUANTILES), "row_norm_max",
             *(f"col_norm_q{q:.2f}" for q in NORM_QUANTILES), "col_norm_max"),
            scaled=True,
            cost=3.5,
        ),
        Family("sketch", 2, "product", scaled=True, cost=1.5),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Representation:
    """A view: numbers per unit, taken or derived from the columns of `families`.

    parts: made of these representations side by side, never stored itself. default: computed when
    the config names none. unit "file" has one unit for the whole LoRA. width: columns per unit (of
    "file": per module), 0 where sketch sizes or the weights decide.
    """

    name: str
    version: int
    families: tuple[str, ...]
    unit: str
    parts: tuple[str, ...] = ()
    default: bool = True
    width: int = 0


REPRESENTATIONS = {
    r.name: r
    for r in (
        Representation("simple_stats", 1, ("order",), "factor", width=5),
        Representation("rank_based", 1, ("order",), "factor", width=11),
        Representation("stats", 1, ("order",), "factor", width=7),
        Representation("spectral", 1, ("spectral",), "factor", width=32),
        Representation("matrix_norms", 1, ("spectral", "order"), "factor", width=7),
        Representation("distribution", 1, ("order",), "factor", width=12),
        Representation("frequency", 1, ("fourier",), "factor", width=14),
        Representation("info_theoretic", 1, ("order",), "factor", width=2),
        Representation(
            "ensemble",
            1,
            (),
            "factor",
            ("spectral", "matrix_norms", "distribution", "frequency", "info_theoretic"),
        ),
        Representation("flat_vec", 1, (), "factor", default=False),
        Representation("singular_values", 1, ("product",), "product", width=19),
        Representation("product_norms", 1, ("product",), "product", width=13),
        Representation("product_moments", 1, ("product",), "product", width=4),
        Representation(
            "product", 1, (), "product", ("singular_values", "product_norms", "product_moments")
        ),
        Representation("product_sketch", 1, ("sketch",), "product"),
        Representation("left_projector", 1, ("sketch",), "product"),
        Representation("right_projector", 1, ("sketch",), "product"),
        Representation("norm_only", 1, ("product",), "product", default=False, width=1),
        Representation("recipe_only", 2, (), "file", default=False, width=3),
    )
}
CONTROLS = ("recipe_only", "norm_only")


def stored(names: list[str]) -> list[str]:
    """The representations that have files of their own, for these names, in catalog order."""
    wanted = {p for n in names for p in (REPRESENTATIONS[n].parts or (n,))}
    return [n for n in REPRESENTATIONS if n in wanted]


def sketch_columns(sketch: int, projector: int) -> tuple[str, ...]:
    """Columns of the sketch family: W's sketch row by row, then upper triangles left and right."""
    pairs = [(i, j) for i in range(projector) for j in range(i, projector)]
    return (
        *(f"w{i}_{j}" for i in range(sketch) for j in range(sketch)),
        *(f"left{i}_{j}" for i, j in pairs),
        *(f"right{i}_{j}" for i, j in pairs),
    )
