"""The oracle: sae-lens itself, in an environment that has it (`pip install sae-lens==6.54.12`).

Every architecture that it saves is saved by it, and encoded by it and by us.
"""

import numpy as np
import pytest
from sae_tiny import D, F, K, activations, codes, config, parameters, rows, targets

from actprobe import sae as room
from actprobe.errors import ConfigError

torch = pytest.importorskip("torch")
sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed")

NORMALIZE = ["none", "layer_norm", "constant_norm_rescale"]
ARCHITECTURES = {
    "standard": {},
    "jumprelu": {},
    "gated": {},
    "topk": {"k": K},
    "topk_rescale": {"k": K, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": K},
    "transcoder": {"d_out": D},
    "skip_transcoder": {"d_out": D},
    "jumprelu_transcoder": {"d_out": D},
    "jumprelu_skip_transcoder": {"d_out": D},
}


def metadata(hook="blocks.4.hook_resid_post"):
    from sae_lens.saes.sae import SAEMetadata

    return SAEMetadata(model_name="tiny", hook_name=hook)


def build(case, f=F, seed=0, **cfg):
    """A random sae-lens SAE of one case."""
    from sae_lens.registry import get_sae_class

    architecture = case.removesuffix("_rescale")
    sae_class, cfg_class = get_sae_class(architecture)
    more = ARCHITECTURES[case] | cfg
    if "transcoder" in architecture:
        more["apply_b_dec_to_input"] = False  # sae-lens refuses anything else
    settings = cfg_class(d_in=D, d_sae=f, metadata=metadata(), **more)
    made = sae_class(settings)
    p = parameters("jumprelu" if "jumprelu" in architecture else architecture, f=f, seed=seed)
    for name, value in made.named_parameters():
        if name in p:
            value.data = torch.from_numpy(np.ascontiguousarray(p[name]))
    return made


def assert_encodes_alike(tmp_path, made, x, folder=None, **settings):
    """Equal support, values to 1e-5 relative; `made` is saved by sae-lens first."""
    if folder is None:
        made.save_model(tmp_path / "sae")
    with torch.no_grad():
        expected = made.encode(torch.from_numpy(x)).numpy()
    found = codes(tmp_path, folder or tmp_path / "sae", x.reshape(len(x), -1), **settings)
    assert 0 < np.count_nonzero(expected) < expected.size / 2
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", ARCHITECTURES)
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("b_dec", [True, False])
def test_architectures(tmp_path, case, normalize, b_dec):
    made = build(case, apply_b_dec_to_input=b_dec, normalize_activations=normalize)
    assert_encodes_alike(tmp_path, made, rows(60))


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_blocks(tmp_path, case):
    """Three blocks of latents and two row tiles; neither divides."""
    assert_encodes_alike(tmp_path, build(case, f=9001), rows(1100), max_memory=600 * 10**6)


@pytest.mark.parametrize("case", ["standard", "jumprelu", "gated", "topk_rescale"])
def test_folded_decoder_norms(tmp_path, case):
    made = build(case)
    made.save_model(tmp_path / "plain")
    made.fold_W_dec_norm()
    assert_encodes_alike(
        tmp_path, made, rows(60), folder=tmp_path / "plain", fold_decoder_norm=True
    )


def test_hook_z(tmp_path):
    made = build("standard")
    made.cfg.metadata = metadata("blocks.4.attn.hook_z")
    made.cfg.reshape_activations = "hook_z"
    made.turn_on_forward_pass_hook_z_reshaping()
    x = rows(60).reshape(60, 4, D // 4)
    assert_encodes_alike(tmp_path, made, x, overrides={"ignore_mismatch": True})


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka_batchtopk"])
def test_batch_top_k_as_saved_for_inference(tmp_path, name):
    from sae_lens.registry import get_sae_training_class

    training_class, cfg_class = get_sae_training_class(name)
    widths = {"matryoshka_widths": [20, 50, F]} if "matryoshka" in name else {}
    made = training_class(cfg_class(d_in=D, d_sae=F, k=K, metadata=metadata(), **widths))
    with torch.no_grad():
        made.W_enc.copy_(torch.from_numpy(parameters()["W_enc"]))
        made.topk_threshold.fill_(0.1)
    made.save_inference_model(tmp_path / "sae")
    loaded = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    assert loaded.cfg.architecture() == "jumprelu"
    assert_encodes_alike(tmp_path, loaded, rows(60), folder=tmp_path / "sae")


def test_unfolded_scaling_is_refused_where_sae_lens_leaves_it_out(tmp_path):
    build("standard", normalize_activations="expected_average_only_in").save_model(tmp_path / "sae")
    cfg = config(tmp_path, {"s": {"source": str(tmp_path / "sae")}})
    with pytest.raises(ConfigError, match="has to be folded into the weights first"):
        targets(cfg, activations(tmp_path, {"a": rows(3)}))


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        ("jumprelu", {"architecture": "standard"}),
        ("topk", {"k": K + 1}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("topk_rescale", {"rescale_acts_by_decoder_norm": False}),
    ],
)
def test_a_wrong_reading_does_not_pass(tmp_path, case, wrong):
    import json

    made = build(case)
    made.save_model(tmp_path / "sae")
    path = tmp_path / "sae" / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(AssertionError):
        assert_encodes_alike(tmp_path, made, rows(60), folder=tmp_path / "sae")


def test_an_sae_trained_here_is_loaded_by_sae_lens(tmp_path):
    from test_sae_training import trained

    folder = room.save_saelens(trained(tmp_path, epochs=1).path, tmp_path / "export")
    loaded = sae_lens.SAE.load_from_disk(folder)
    x = rows(60, d=24) + 5
    with torch.no_grad():
        z = loaded.encode(torch.from_numpy(x))
        assert loaded.cfg.k == 3 and int((z != 0).sum(1).max()) == 3
    assert_encodes_alike(tmp_path, loaded, x, folder=folder, overrides={"ignore_mismatch": True})
