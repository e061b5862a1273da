"""Primitive families and representations against plain per-matrix definitions and known values."""

from __future__ import annotations

import lora_reference as reference
import numpy as np
import pytest

from actprobe.lora import views
from actprobe.lora.compute import Factors, columns, primitives, units
from actprobe.lora.families import fourier, order, product, sketch, spectral
from actprobe.lora.families.weights import Weights
from actprobe.lora.flags import Flags
from actprobe.lora.numbers import Rounding
from actprobe.lora.records import Sketch

SIZES = Sketch(product=4, projector=5)
EXACT = np.array([Rounding(), Rounding()])
X1 = np.array([[-4, -2, 2, -3, 0, 6], [-3, 3, -5, -3, 3, -5], [-2, -3, 6, 3, 4, -5],
               [-1, 6, 2, -5, -1, 6]], np.float32)  # fmt: skip
X2 = np.array([[3], [-1], [4], [1], [-5], [9], [2], [-6], [5], [3], [-5], [8]], np.float32)
B = np.array([[1.0, 2], [-1, 0], [3, 1], [0, -2]])
A = np.array([[1.0, 0, 2], [-1, 3, 1]])


def of_factor(x: np.ndarray) -> dict[str, np.ndarray]:
    """Every factor representation of one matrix, by way of the batched pass."""
    lora = {"m": Factors(x, np.ones((3, len(x)), np.float32), 1.0)}
    families = ["order", "spectral", "fourier"]
    found = primitives([lora], ["m"], families, SIZES)
    names = {f: columns(f, SIZES) for f in families}
    primitive = {f: found[f][0] for f in families}
    return {r: views.view(r, primitive, names)[0][0, 0] for r in reference.FACTOR}


def weights(b: np.ndarray, a: np.ndarray, scale: float = 1.0) -> Weights:
    return Weights(b.T[None].astype(float), a[None].astype(float), np.array([scale]), EXACT[None])


def product_columns(b: np.ndarray, a: np.ndarray, scale: float = 1.0) -> dict[str, float]:
    row = product.compute(weights(b, a, scale))[0]
    return dict(zip(columns("product", SIZES), row.tolist(), strict=True))


def random_factors(seed: int, rank: int, n_out: int = 40, n_in: int = 52):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_out, rank)) * 0.03, rng.normal(size=(rank, n_in)) / rank


def test_known_values_of_a_matrix() -> None:
    found = of_factor(X1)
    expected = {
        "simple_stats": [18.89444, -0.04166667, 3.939534, 6, -5],
        "stats": [-0.04166667, 3.939534, -1, -5, 6, 0.2587051, 1.537589],
        "rank_based": [-5, -5, -5, -3, -1, 3, 6, 6, 6, 6, 11],
        "distribution": [-5, -5, -3, -1, 3, 6, 6, 6, 3.454861, 94.54879, 0.2587051, 1.537589],
        "matrix_norms": [18.89444, 35.81625, 13.20149, 22, 23, 1.895597, 0.6986967],
        "info_theoretic": [2.174293, 0.5557977],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=1e-7, err_msg=name)
    sigma = [13.20149, 10.03797, 7.486736, 5.090057]
    np.testing.assert_allclose(found["spectral"][:4], sigma, rtol=1e-6)
    np.testing.assert_allclose(found["spectral"][-3:], [1.328856, 1.320149e9, 35.81625], rtol=1e-6)
    np.testing.assert_allclose(
        found["frequency"][[0, 2, 4, 6, 8, 10, 11, 12, 13]],
        [26.62705, 26.45497, 24.60266, 23.89561, 20.95233, 17.06754, 8.105498, 26.62705, 0.7059188],
        rtol=2e-6,
    )


def test_known_values_of_a_column() -> None:
    found = of_factor(X2)
    np.testing.assert_allclose(found["simple_stats"], [17.20465, 1.5, 4.945154, 9, -6], rtol=1e-6)
    assert found["stats"][2] == 2 and found["rank_based"][4] == 2.5
    np.testing.assert_allclose(found["rank_based"][-3:], [8.89, 6.25, 14.78], rtol=1e-6)
    np.testing.assert_allclose(found["matrix_norms"][3:], [52, 9, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(found["info_theoretic"][0], 2.253857, rtol=1e-6)
    np.testing.assert_allclose(found["frequency"][-1], 0.9930924, rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(1, 48), (1, 7), (4, 1), (4, 320), (3, 5), (16, 33), (12, 9), (24, 24)]
)
def test_factor_representations_equal_the_plain_definitions(shape: tuple[int, int]) -> None:
    x = (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.02).astype(np.float32)
    for name, values in of_factor(x).items():
        expected = np.array(reference.FACTOR[name](x.astype(float)))
        tolerance = np.full(len(expected), 1e-5)
        if name == "spectral":
            tolerance[20:29] = 1e-3
        # 1e-12: singular values beyond the rank and the entropy of one number are rounding noise.
        np.testing.assert_array_less(
            np.abs(values - expected), tolerance * np.abs(expected) + 1e-12, err_msg=name
        )


def test_both_factors_of_many_loras_of_mixed_ranks_in_one_pass() -> None:
    rng = np.random.default_rng(0)
    loras = [
        {
            m: Factors(
                rng.standard_normal((rank, n_in)).astype(np.float32),
                rng.standard_normal((n_out, rank)).astype(np.float32),
                0.5,
            )
            for m, n_in, n_out in (("a", 20, 20), ("b", 12, 20))
            if not (m == "b" and rank == 2)
        }
        for rank in (1, 4, 2, 4, 8)
    ]
    families = ["order", "spectral", "fourier", "product", "sketch"]
    found = primitives(loras, ["a", "b"], families, SIZES)
    assert units("order", ["a", "b"]) == ["a:down", "a:up", "b:down", "b:up"]
    for row, lora in enumerate(loras):
        alone = primitives([lora], ["a", "b"], families, SIZES)
        for f in families:
            np.testing.assert_allclose(found[f][0][row], alone[f][0][0], rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(found[f][1][row], alone[f][1][0])
    assert found["order"][1].tolist()[2] == [1, 1, 0, 0]
    assert found["product"][1][2].tolist() == [1, 0] and not found["product"][0][2, 1].any()
    up = reference.matrix_norms(loras[1]["b"].up.astype(float))
    names = {f: columns(f, SIZES) for f in families}
    norms, _ = views.view("matrix_norms", {f: found[f][0] for f in names}, names)
    np.testing.assert_allclose(norms[1, 3], up, rtol=1e-5)


def test_a_constant_or_zero_tensor_gives_finite_numbers() -> None:
    for x in (np.zeros((2, 9), np.float32), np.full((1, 3), 0.5, np.float32)):
        for f in (order.compute(x.reshape(1, -1)), spectral.compute(x[None], False, EXACT[:1]),
                  fourier.compute(x[None])):  # fmt: skip
            assert np.isfinite(f).all()


def test_known_values_of_a_product() -> None:
    found = product_columns(B, A)
    expected = {
        "sigma1": 11.5857783, "sigma2": 5.4561654, "sigma3": 0, "nuclear": 17.0419437,
        "frobenius": np.sqrt(164), "stable_rank": 1.22178114, "effective_rank": 1.87196885,
        "mean": 1, "std": 3.55902608, "skew": -0.06654689, "kurt": 2.39750693,
        "row_norm_max": np.sqrt(62), "col_norm_max": 9,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
    half = product_columns(B, A, 0.5)
    assert half["sigma1"] == pytest.approx(5.7928892) and half["std"] == pytest.approx(1.77951304)
    for name in ("stable_rank", "effective_rank", "skew", "kurt"):
        assert half[name] == pytest.approx(found[name], rel=1e-6)
    w = weights(B, A)
    u = (w.left @ w.b)[0][::-1].T  # columns by descending singular value, signs arbitrary
    expected_u = [[0.6166689, -0.2562526], [-0.1149111, -0.3292675], [0.5956123, 0.6950423],
                  [-0.5017578, 0.5855200]]  # fmt: skip
    np.testing.assert_allclose(np.abs(u), np.abs(expected_u), rtol=1e-5)
    np.testing.assert_allclose(
        (u @ u.T)[0], [0.4459459, 0.0135135, 0.1891892, -0.4594595], rtol=1e-5
    )


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("scale", [1.0, 0.25, -2.0])
def test_product_features_equal_those_of_the_dense_product(rank: int, scale: float) -> None:
    b, a = random_factors(rank, rank)
    found = product.compute(weights(b, a, scale))[0]
    expected = reference.product(scale * (b @ a))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_both_ways_to_the_power_sums_agree() -> None:
    b, a = random_factors(3, 6)
    w = Weights(np.stack([b.T, 2 * b.T]), np.stack([a, a]), np.ones(2), np.stack([EXACT, EXACT]))
    for pairs, dense in zip(product._power_sums(w), product._dense_power_sums(w), strict=True):
        np.testing.assert_allclose(pairs, dense, rtol=1e-10)


def test_sketches_equal_those_of_the_dense_product() -> None:
    b, a = random_factors(5, 4)
    found = sketch.compute(["m"], weights(b, a, 0.5), SIZES.product, SIZES.projector)[0]
    total = SIZES.product + SIZES.projector
    left, right = (sketch.projection("m", s, n, total) for s, n in (("out", 40), ("in", 52)))
    w = 0.5 * b @ a
    expected = [(left[:, :4].T @ w @ right[:, :4]).ravel()]
    expected += reference.projectors(w, 4, left[:, 4:], right[:, 4:])
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5, atol=1e-7)
    other = sketch.compute(["n"], weights(b, a, 0.5), SIZES.product, SIZES.projector)[0]
    assert not np.allclose(found, other)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_change_of_gauge_moves_no_product_feature(rank: int) -> None:
    b, a = random_factors(7, rank)
    rng = np.random.default_rng(11)
    gauge = rng.normal(size=(rank, rank)) + 3 * np.eye(rank)
    other = b @ gauge, np.linalg.inv(gauge) @ a
    rounded = [x.astype(np.float32) for x in other]  # as a file would hold them
    for compute in (
        product.compute,
        lambda w: sketch.compute(["m"], w, SIZES.product, SIZES.projector),
    ):
        before = compute(weights(b, a, 0.7))[0]
        np.testing.assert_allclose(compute(weights(*other, 0.7))[0], before, rtol=1e-5, atol=1e-12)
        # Rounding the factors moves an entry by a share of the largest, not of itself.
        after = compute(weights(*rounded, 0.7))[0]
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6 * np.abs(before).max())
        flipped = compute(weights(-b, -a, 0.7))[0]
        np.testing.assert_allclose(flipped, before, rtol=1e-6, atol=1e-12)


def test_a_sign_flip_changes_only_odd_factor_columns() -> None:
    x = (np.random.default_rng(3).standard_normal((4, 300)) * 0.1).astype(np.float32)
    plain, flipped = of_factor(x), of_factor(-x)
    changed = {
        name: int((~np.isclose(plain[name], flipped[name], rtol=1e-4)).sum()) for name in plain
    }
    assert changed == {
        "simple_stats": 3, "rank_based": 9, "stats": 5, "distribution": 8,
        "spectral": 0, "matrix_norms": 0, "frequency": 0, "info_theoretic": 0,
    }  # fmt: skip


def test_width_does_not_depend_on_the_rank_and_an_untrained_module_is_masked() -> None:
    rng = np.random.default_rng(0)

    def lora(rank: int, size: float) -> dict[str, Factors]:
        down = rng.standard_normal((rank, 10)).astype(np.float32)
        return {"m": Factors(down, np.full((8, rank), size, np.float32), 1.0)}

    found = primitives([lora(1, 0.1), lora(7, 0.0)], ["m"], ["product", "sketch", "order"], SIZES)
    assert found["product"][1].tolist() == [[1], [0]] and found["sketch"][1].tolist() == [[1], [0]]
    assert not found["product"][0][1].any() and not found["sketch"][0][1].any()
    assert found["order"][1].all() and all(np.isfinite(x).all() for x, _ in found.values())


def flagged(x: np.ndarray) -> np.ndarray:
    """Flags of x [n, units, columns], added in two pieces."""
    flags, mask = Flags(*x.shape[1:]), np.ones(x.shape[:2], bool)
    flags.add(x[:7], mask[:7])
    flags.add(x[7:], mask[7:])
    return flags.result()


def test_flags_ignore_loras_without_the_module() -> None:
    x = np.random.default_rng(0).standard_normal((20, 1, 3)).astype(np.float32)
    x[:, 0, 1], x[:, 0, 2] = 4, -2 * x[:, 0, 0]
    x[:3] = 0
    flags, mask = Flags(1, 3), np.ones((20, 1), bool)
    mask[:3] = False
    flags.add(x[:5], mask[:5])
    flags.add(x[5:], mask[5:])
    assert flags.result().tolist() == [0, 1, 2]
    assert not flagged(np.zeros((4, 2, 500), np.float32)).any(), "wide units are not looked at"


def test_rank_one_degeneracies_are_flagged() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 1, 64)).astype(np.float32) * rng.uniform(0.5, 2, (60, 1, 1))
    loras = [{"m": Factors(row.astype(np.float32), np.ones((4, 1), np.float32), 1.0)} for row in x]
    families = ["spectral", "order"]
    found = primitives(loras, ["m"], families, SIZES)
    names = {f: columns(f, SIZES) for f in families}
    primitive = {f: found[f][0][:, :1] for f in families}
    spectrum = flagged(views.view("spectral", primitive, names)[0])
    assert (spectrum == 1).sum() == 28 and (spectrum == 2).sum() == 2  # entropy: rounding of 0
    norms = flagged(views.view("matrix_norms", primitive, names)[0])
    assert (norms == 1).sum() == 2 and (norms == 2).sum() >= 2


def test_projections_do_not_change() -> None:
    assert (sketch.projection("unet_a", "out", 3, 4) * 2).tolist() == PROJECTION


PROJECTION = [[1, 1, -1, 1], [-1, -1, 1, -1], [-1, 1, 1, 1]]
