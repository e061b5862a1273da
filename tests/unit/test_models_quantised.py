"""Quantised weights: refused by name where a package is missing, before weights are loaded."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from models_tiny import (
    by_name,
    make_config,
    model_entry,
    run,
    save_model,
    targets,
    write_texts,
)
from safetensors.torch import load_file, save_file

from actprobe import config as configuration
from actprobe import models
from actprobe.base.errors import ConfigError
from actprobe.cache import store
from actprobe.models import quantised

WANTED = {"sites": ["resid_post.1"], "positions": ["last", "mean"]}
NF4 = {"bits": 4, "kind": "nf4"}


@pytest.fixture
def folder(tmp_path):
    return save_model("llama", tmp_path / "model")


def describe(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))


def made(tmp_path, folder, **changes):
    config = make_config(tmp_path / "cache", model_entry(folder, **changes), WANTED)
    return by_name(run(config, write_texts(tmp_path / "cache")))


def keys_of(tmp_path, folder, **changes):
    config = make_config(tmp_path / "cache", model_entry(folder, **changes), WANTED)
    return [t.key for t in targets(config, write_texts(tmp_path / "cache"))]


def lacks(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is not None, reason=f"{package} is installed"
    )


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("settings", "package"),
    [
        pytest.param({"quant_method": "gptq", "bits": 4, "group_size": 128}, "optimum",
                     marks=lacks("optimum")),
        pytest.param({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
                     "gptqmodel", marks=lacks("gptqmodel")),
        pytest.param({"quant_method": "compressed-tensors", "format": "pack-quantized",
                      "config_groups": {}}, "compressed-tensors", marks=lacks("compressed_tensors")),
        pytest.param({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes",
                     marks=lacks("bitsandbytes")),
        pytest.param({"load_in_4bit": True}, "bitsandbytes", marks=lacks("bitsandbytes")),
        pytest.param({"quant_method": "aqlm"}, "aqlm", marks=lacks("aqlm")),
        pytest.param({"quant_method": "nonsense"}, "nonsense"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_a_method_whose_package_is_missing(tmp_path, folder, settings, package):
    describe(folder, **settings)
    with pytest.raises(
        ConfigError, match=rf"models\.m: weights quantised by .* loaded here: .*{package}"
    ):
        made(tmp_path, folder)


@lacks("bitsandbytes")
@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("wanted", [NF4, {"bits": 8, "kind": "nf4"}])
def test_quantisation_that_is_asked_for(tmp_path, folder, wanted):
    how = f"bitsandbytes, {wanted['bits']} bits"
    message = rf"models\.m: weights quantised by {how} cannot be loaded here: .*pip install"
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, folder, quantization=wanted)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "random"}, "random weights are not quantised"),
        (
            {"adapter": {"source": "x"}},
            r"merge_adapters: quantised weights .*write merge_adapters: false",
        ),
    ],
)
def test_what_quantised_weights_do_not_go_with(folder, changes, message):
    import transformers

    entry = model_entry(folder, quantization=NF4, **changes)
    config = transformers.AutoConfig.from_pretrained(folder)
    with pytest.raises(ConfigError, match=message):
        quantised.check(config, entry, "m", torch.device)


@pytest.mark.usefixtures("no_weights")
def test_weights_that_are_quantised_already(tmp_path, folder):
    describe(folder, quant_method="gptq", bits=4)
    with pytest.raises(ConfigError, match=r"models\.m\.quantization: .*quantised already, by gptq"):
        made(tmp_path, folder, quantization=NF4)


def test_the_method_is_in_the_key(tmp_path, folder):
    plain, nf4 = keys_of(tmp_path, folder), keys_of(tmp_path, folder, quantization=NF4)
    fp4 = keys_of(tmp_path, folder, quantization={**NF4, "kind": "fp4"})
    eight = keys_of(tmp_path, folder, quantization={"bits": 8, "kind": "nf4"})
    assert len({k[0] for k in (plain, nf4, fp4, eight)}) == 4
    assert eight == keys_of(tmp_path, folder, quantization={"bits": 8, "kind": "fp4"})
    describe(folder, quant_method="gptq", bits=4)
    assert keys_of(tmp_path, folder)[0] not in (plain[0], nf4[0], fp4[0], eight[0])


def test_what_the_config_takes():
    base = {"experiment": "e", "datasets": []}
    found = configuration.resolve(
        {**base, "models": {"m": {"source": "x", "quantization": {"bits": 4}}}}
    )
    assert found["models"]["m"]["quantization"] == NF4
    with pytest.raises(ConfigError, match=r"models\.m\.quantization\.bits: 3"):
        configuration.resolve(
            {**base, "models": {"m": {"source": "x", "quantization": {"bits": 3}}}}
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_is_read_by_its_own_config(tmp_path, folder, dtype):
    """The one method that needs no package: without a GPU its weights are taken back to plain ones."""
    weights = load_file(folder / "model.safetensors")
    plain, stored = dict(weights), {}
    for name, w in weights.items():
        if not name.endswith("proj.weight"):
            stored[name] = w
            continue
        scale = w.abs().max() / 448
        stored[name] = (w / scale).to(torch.float8_e4m3fn)
        blocks = [-(-n // 16) for n in w.shape]
        stored[f"{name}_scale_inv"] = scale.repeat(*blocks)
        plain[name] = stored[name].float() * scale
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    describe(folder, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[16, 16])
    found = made(tmp_path, folder, dtype=dtype)
    header = store.read_header(found["resid_post.1.last"].path)
    assert header["facts"]["quantization"] == "fp8"
    reference = save_model("llama", tmp_path / "plain")
    save_file(plain, reference / "model.safetensors", {"format": "pt"})
    expected = made(tmp_path / "p", reference, dtype=dtype)
    for place, t in found.items():
        a, b = (models.load_activations(x.path) for x in (t, expected[place]))
        assert np.linalg.norm(a - b) < 0.03 * np.linalg.norm(b)
