"""encode(): every architecture, through the whole stage, against its definition in plain NumPy."""

import numpy as np
import pytest
from sae_tiny import D, F, K, codes, dense, parameters, rows, save_saelens

CASES = {
    "standard": {},
    "jumprelu": {},
    "gated": {},
    "topk": {"k": K},
    "topk_rescale": {"k": K, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": K},
}


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same support, and values to 1e-5 (relative; a few float32 roundings near zero)."""
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def tiny(folder, case, seed=0, f=F, **cfg):
    """A SAELens folder of one case, its parameters, and what `dense` has to be told."""
    architecture = case.partition("_")[0]
    p = parameters(architecture, f=f, seed=seed)
    cfg = CASES[case] | {"architecture": architecture} | cfg
    save_saelens(folder, p, **cfg)
    told = {"architecture": architecture, "rescale": "rescale" in case}
    return p, told | ({"k": cfg["k"]} if "k" in cfg else {})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("b_dec", [True, False])
def test_architectures(tmp_path, case, normalize, b_dec):
    p, told = tiny(
        tmp_path / "sae", case, apply_b_dec_to_input=b_dec, normalize_activations=normalize
    )
    x = rows(50)
    found = codes(tmp_path, tmp_path / "sae", x)
    assert_same(found, dense(p, x, b_dec=b_dec, normalize=normalize, **told))
    assert 0 < np.count_nonzero(found) < found.size / 2


@pytest.mark.parametrize("case", ["jumprelu", "topk", "topk_rescale"])
def test_a_wrong_definition_does_not_pass(tmp_path, case):
    p, told = tiny(tmp_path / "sae", case)
    x = rows(50)
    wrong = {
        "jumprelu": {"architecture": "standard"},
        "topk": {"k": K + 1},
        "topk_rescale": {"rescale": False},
    }[case]
    with pytest.raises(AssertionError):
        assert_same(codes(tmp_path, tmp_path / "sae", x), dense(p, x, **{**told, **wrong}))


@pytest.mark.parametrize("case", ["jumprelu", "topk", "abstopk", "gated"])
@pytest.mark.parametrize("product", ["float32"])
def test_widths_and_rows_that_fill_no_whole_tile(tmp_path, case, product):
    """Three column tiles and two row tiles, the last of each partly filled."""
    p, told = tiny(tmp_path / "sae", case, f=9001)
    x = rows(1030)
    found = codes(tmp_path, tmp_path / "sae", x, product=product)
    expected = dense(p, x, **told)
    flips = np.count_nonzero((found != 0) != (expected != 0))
    assert flips <= 2  # of nine million: a float32 product against a float64 one at the threshold
    same = (found != 0) & (expected != 0)
    np.testing.assert_allclose(found[same], expected[same], rtol=1e-4, atol=2e-6)


def test_k_larger_than_a_block(tmp_path):
    p, told = tiny(tmp_path / "sae", "topk", f=9001, k=4500)
    x = rows(20)
    found = codes(tmp_path, tmp_path / "sae", x)
    expected = dense(p, x, **told)
    assert np.count_nonzero((found != 0) != (expected != 0)) <= 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_equal_values_go_to_the_lower_latent(tmp_path):
    p = parameters()
    p["W_enc"] = np.tile(p["W_enc"][:, :1], (1, 5000))  # across the border of a block
    p |= {"W_dec": np.zeros((5000, D), np.float32), "b_enc": np.full(5000, 9, np.float32)}
    save_saelens(tmp_path / "sae", p, architecture="topk", k=3)
    found = codes(tmp_path, tmp_path / "sae", rows(4))
    assert np.array_equal(np.nonzero(found)[1].reshape(4, 3), [[0, 1, 2]] * 4)


def test_rows_on_which_nothing_fires(tmp_path):
    p = parameters("jumprelu")
    p["b_dec"][:] = 0
    p["b_enc"] = -np.abs(p["b_enc"])
    save_saelens(tmp_path / "sae", p, architecture="jumprelu")
    x = rows(6)
    x[[0, 3, 5]] = 0
    found = codes(tmp_path, tmp_path / "sae", x)
    assert not found[[0, 3, 5]].any() and found[[1, 2, 4]].any(axis=1).all()
    assert_same(found, dense(p, x, "jumprelu"))


@pytest.mark.parametrize(
    "name", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
)
def test_transcoders_never_subtract_b_dec(tmp_path, name):
    base = "jumprelu" if name.startswith("jumprelu") else "standard"
    p = parameters(base)
    p["W_dec"], p["b_dec"] = p["W_dec"][:, :5], p["b_dec"][:5]  # it predicts another width
    more = {"W_skip": np.ones((5, D), np.float32)} if "skip" in name else {}
    save_saelens(tmp_path / "sae", p | more, architecture=name, apply_b_dec_to_input=True)
    x = rows(30)
    assert_same(codes(tmp_path, tmp_path / "sae", x), dense(p, x, base, b_dec=False))


def test_heads_are_flattened(tmp_path):
    p, told = tiny(tmp_path / "sae", "standard", reshape_activations="hook_z")
    x = rows(30)
    heads = codes(tmp_path, tmp_path / "sae", x.reshape(30, 4, D // 4))
    assert_same(heads, dense(p, x, **told))


def test_bfloat16_activations_are_widened(tmp_path):
    p, told = tiny(tmp_path / "sae", "standard")
    bits = (rows(30).view(np.uint32) >> 16).astype(np.uint16)
    x = (bits.astype(np.uint32) << 16).view(np.float32)
    assert_same(codes(tmp_path, tmp_path / "sae", bits), dense(p, x, **told))


@pytest.mark.parametrize("case", ["standard", "jumprelu", "gated", "topk_rescale"])
def test_folded_decoder_norms(tmp_path, case):
    p, told = tiny(tmp_path / "sae", case)
    x = rows(30)
    norm = np.linalg.norm(p["W_dec"].astype(np.float64), axis=1)
    expected = dense(p, x, **told) * (1 if told["rescale"] else norm)
    assert_same(codes(tmp_path, tmp_path / "sae", x, fold_decoder_norm=True), expected)


@pytest.mark.parametrize("case", ["standard", "jumprelu", "gated", "topk", "abstopk"])
def test_torch_agrees_with_numpy(tmp_path, case):
    """The engine of GPUs, run on the CPU: the same rule on torch tensors."""
    from actprobe.sae.architectures import prepare, rule
    from actprobe.sae.encode import RowTile, encode
    from actprobe.sae.engine import Cpu, Torch
    from actprobe.sae.formats import describe
    from actprobe.sae.pieces import Pieces
    from actprobe.sae.weights import Weights

    tiny(tmp_path / "sae", case, f=5000)
    sae, x = describe(tmp_path / "sae"), rows(70)
    found = []
    for engine in (Cpu(), Torch("cpu", "float32")):
        with Weights(sae) as weights:
            pieces = Pieces(tmp_path / engine.name, "0" * 64)
            best = None
            if sae.k:
                from actprobe.sae.topk import Best

                best = Best(len(x), sae.k)
            tile = RowTile(pieces, 0, engine.put(prepare(x, sae, weights.vector("b_dec"))), best)
            encode([tile], weights.encoder, rule(sae, weights.vector), engine, 4096, "s")
            if best is not None:
                found.append((best.latents, best.values))
            else:
                tiles = list(pieces.tiles(0))
                found.append((np.concatenate([f for f, _ in tiles]),
                              np.concatenate([v for _, v in tiles])))  # fmt: skip
    assert np.array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=2e-5, atol=1e-6)


def test_bfloat16_products_are_another_artefact(tmp_path):
    p, told = tiny(tmp_path / "sae", "standard")
    x = rows(30)
    exact = dense(p, x, **told)
    rough = codes(tmp_path, tmp_path / "sae", x, product="bfloat16", device="cpu")
    assert np.abs(rough - exact).max() > 1e-4  # it is what was asked for
    np.testing.assert_allclose(rough, exact, atol=0.1)
    assert_same(codes(tmp_path, tmp_path / "sae", x), exact)
