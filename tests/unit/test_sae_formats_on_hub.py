"""SAE formats that hold one file for each layer, or one PyTorch file, in repositories of the hub."""

# ruff: noqa: F401, F811

import json

import numpy as np
import pytest
from hub_server import loopback
from sae_tiny import batch, dense, parameters, rows, save_saelens
from test_hub_saes import META, encoded, plan, publish, short
from test_sae_encode import assert_same
from test_sae_formats import goodfire, lm_saes, qwen_scope, saev, transcoder

from actprobe import sae
from actprobe.base.errors import BadInput, ConfigError

ANY = {"overrides": {"ignore_mismatch": True}}


@pytest.mark.parametrize(
    ("write", "below", "kind", "fmt"),
    [
        (transcoder(), "layer_4.safetensors", "standard", "circuit_tracer"),
        (transcoder("jump_relu", True), "W_enc_4.safetensors", "jumprelu", "circuit_tracer_clt"),
        (goodfire, "tiny-SAE-l4.pth", "standard", "goodfire"),
        (saev("Relu"), "sae.pt", "standard", "saev"),
        (saev("Relu"), "", "standard", "saev"),
        (lm_saes(act_fn="relu"), "", "standard", "lm_saes"),
    ],
)  # fmt: skip
def test_one_file_of_a_repository(tmp_path, loopback, write, below, kind, fmt):
    p = parameters()
    publish(loopback, tmp_path, lambda f: write(f, p))
    source = f"hub:org/repo/sub/{below}".rstrip("/")
    _, found = plan(tmp_path, source, **ANY)
    told = found["saes"][0].spec.source if found["saes"] else found["latents"][0].spec.sae
    assert told.format == fmt
    found = encoded(tmp_path, source, **ANY)
    assert_same(found, dense(p, rows(3), kind, b_dec=False))


def test_a_layer_is_named_where_there_are_several(tmp_path, loopback):
    p = parameters()

    def write(folder):
        transcoder()(folder, p)
        file = folder / "layer_4.safetensors"
        (folder / "layer_5.safetensors").write_bytes(file.read_bytes())

    publish(loopback, tmp_path, write)
    with pytest.raises(
        ConfigError, match=r"there are 2 SAEs; name the file of one .*layer_4\.safet"
    ):
        plan(tmp_path, **ANY)
    one, other = (
        plan(tmp_path, f"hub:org/repo/sub/layer_{n}.safetensors", **ANY)[1]["latents"][0]
        for n in (4, 5)
    )
    assert one.key != other.key


def test_qwen_scope_is_known_by_its_repository(tmp_path, loopback):
    p = parameters()
    folder = tmp_path / "repo"
    qwen_scope(folder, p)
    loopback.add("Qwen/SAE-Res-tiny-W1K-L0_8", folder / "SAE-Res-tiny-W1K-L0_8")
    source = "hub:Qwen/SAE-Res-tiny-W1K-L0_8/layer4.sae.pt"
    found = encoded(tmp_path, source, **ANY)
    assert_same(found, dense(p, rows(3), "topk", b_dec=False))


def test_a10_with_skip_a_config_that_cannot_be_used_is_left_out(tmp_path, loopback):
    def write(folder):
        save_saelens(folder, parameters(), architecture="topk", k=0, metadata=META)

    publish(loopback, tmp_path, write)
    with pytest.raises(ConfigError, match=r"saes\.s\.source: .*cfg\.json: k is 0; expected"):
        plan(tmp_path)
    cfg, found = plan(tmp_path, on_bad="skip")
    sae.run(batch(found["latents"]), cfg, 1)
    with pytest.raises(BadInput, match="k is 0; expected a whole number"):
        sae.open_latents(found["latents"][0].path)
