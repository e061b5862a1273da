"""Dialects: tensor names to modules, scales, headers; what is refused and why."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.files.safetensors import read_header
from actprobe.lora import names
from actprobe.lora.adapter import Adapter, read_adapter
from actprobe.lora.collection import Member
from actprobe.lora.compute import Factors
from actprobe.lora.numbers import to_float
from actprobe.lora.read import read_lora
from actprobe.lora.records import Rules

M = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
BLOCK, FOLDED = M.removesuffix(".to_q"), M.replace(".", "_")
NAME = f"unet_{FOLDED}"


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{M}.lora.down.weight", f"unet.{M}.lora.up.weight"),
        (f"unet.{BLOCK}.processor.to_q_lora.down.weight", f"unet.{BLOCK}.processor.to_q_lora.up.weight"),
        (f"{BLOCK}.processor.to_q_lora.down.weight", f"{BLOCK}.processor.to_q_lora.up.weight"),
        (f"base_model.model.{M}.lora_A.weight", f"base_model.model.{M}.lora_B.weight"),
        (f"base_model.model.{M}.lora_A.default.weight", f"base_model.model.{M}.lora_B.default.weight"),
        (f"unet.{M}.lora_A.weight", f"unet.{M}.lora_B.weight"),
        (f"lora_unet_{FOLDED}.lora_down.weight", f"lora_unet_{FOLDED}.lora_up.weight"),
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight",
        ),
    ],
)  # fmt: skip
def test_every_dialect_names_the_same_module(down: str, up: str) -> None:
    assert list(names.parse((up, down)).modules) == [NAME]


@pytest.mark.parametrize(
    ("path", "dialect", "name"),
    [
        (f"unet.{BLOCK}.to_out.0", "diffusers", f"unet_{BLOCK.replace('.', '_')}_to_out"),
        (f"unet.{BLOCK}.processor.to_out", "diffusers-old", f"unet_{BLOCK.replace('.', '_')}_to_out"),
        (f"lora_unet_{BLOCK.replace('.', '_')}_to_out_0", "kohya",
         f"unet_{BLOCK.replace('.', '_')}_to_out"),
        ("lora_te_text_model_encoder_layers_3_self_attn_q_proj", "kohya",
         "text_encoder_encoder_layers_3_self_attn_q_proj"),
        ("text_encoder.text_model.encoder.layers.3.self_attn.to_q", "diffusers-old",
         "text_encoder_encoder_layers_3_self_attn_q_proj"),
        ("text_encoder.text_model.encoder.layers.3.self_attn.to_out", "diffusers-old",
         "text_encoder_encoder_layers_3_self_attn_out_proj"),
        # transformers 5 has no `text_model.` in a text encoder, so diffusers 0.42 writes none.
        ("text_encoder.encoder.layers.3.self_attn.q_proj", "peft",
         "text_encoder_encoder_layers_3_self_attn_q_proj"),
        ("lora_te1_encoder_layers_3_self_attn_q_proj", "kohya",
         "text_encoder_encoder_layers_3_self_attn_q_proj"),
        ("base_model.model.text_model.encoder.layers.3.self_attn.q_proj", "peft",
         "text_encoder_encoder_layers_3_self_attn_q_proj"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "kohya",
         "text_encoder_2_encoder_layers_0_mlp_fc1"),
        ("lora_unet_input_blocks_8_1_proj_in", "kohya", "unet_down_blocks_2_attentions_1_proj_in"),
        ("lora_unet_middle_block_1_proj_in", "kohya", "unet_mid_block_attentions_0_proj_in"),
        ("lora_unet_middle_block_2_emb", "kohya", "unet_mid_block_resnets_1_emb"),
        ("lora_unet_output_blocks_5_1_proj_in", "kohya", "unet_up_blocks_1_attentions_2_proj_in"),
        ("base_model.model.model.layers.0.self_attn.q_proj", "peft", "model_layers_0_self_attn_q_proj"),
        ("base_model.model.transformer_blocks.0.attn.to_q", "peft",
         "transformer_transformer_blocks_0_attn_to_q"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "peft",
         "unet_double_blocks_0_img_attn_qkv"),
        ("diffusion_model.input_blocks.1.1.proj_in", "kohya", "unet_down_blocks_0_attentions_0_proj_in"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "kohya", "unet_double_blocks_0_img_attn_qkv"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "kohya",
         "text_encoder_3_encoder_block_0_layer_0_SelfAttention_q"),
        # What stands outside the blocks.
        ("base_model.model.conv_in", "peft", "unet_conv_in"),
        ("base_model.model.conv_out", "peft", "unet_conv_out"),
        ("base_model.model.time_embedding.linear_1", "peft", "unet_time_embedding_linear_1"),
        ("base_model.model.add_embedding.linear_2", "peft", "unet_add_embedding_linear_2"),
        ("lora_unet_input_blocks_0_0", "kohya", "unet_conv_in"),
        ("diffusion_model.out.2", "kohya", "unet_conv_out"),
        ("lora_unet_time_embed_0", "kohya", "unet_time_embedding_linear_1"),
        ("lora_unet_label_emb_0_2", "kohya", "unet_add_embedding_linear_2"),
        # Convolutions of SDXL files (LoCon) and their names in diffusers.
        ("lora_unet_input_blocks_4_0_in_layers_2", "kohya", "unet_down_blocks_1_resnets_0_conv1"),
        ("lora_unet_input_blocks_4_0_skip_connection", "kohya",
         "unet_down_blocks_1_resnets_0_conv_shortcut"),
        ("lora_unet_input_blocks_3_0_op", "kohya", "unet_down_blocks_0_downsamplers_0_conv"),
        ("lora_unet_output_blocks_2_2_conv", "kohya", "unet_up_blocks_0_upsamplers_0_conv"),
        ("lora_unet_middle_block_0_out_layers_3", "kohya", "unet_mid_block_resnets_0_conv2"),
        ("lora_unet_output_blocks_0_0_emb_layers_1", "kohya",
         "unet_up_blocks_0_resnets_0_time_emb_proj"),
    ],
)  # fmt: skip
def test_canonical_names(path: str, dialect: str, name: str) -> None:
    assert names.canonical(path, dialect)[0] == name


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (f"lora_unet_{FOLDED}.dora_scale", "DoRA"),
        (f"unet.{M}.lora_magnitude_vector", "DoRA"),
        (f"lora_unet_{FOLDED}.hada_w1_a", "LoHa"),
        (f"lora_unet_{FOLDED}.lokr_w1", "LoKr"),
        (f"lora_unet_{FOLDED}.lora_mid.weight", "Tucker"),
        (f"lora_unet_{FOLDED}.diff", "a full weight difference"),
        (f"lora_unet_{FOLDED}.diff_b", "a full weight difference"),
        ("model.diffusion_model.out.0.weight", "unknown tensor model.diffusion_model"),
        ("some.other.weight", "unknown tensor some.other.weight"),
        (f"unet.{M}x.lora.down.weight", "no partner"),
        (f"unet.{M}x.alpha", "belongs to no module"),
        (f"lora_unet_{FOLDED}.lora_down.weight", "the same module"),
        ("lora_foo_bar.lora_down.weight", "unknown prefix"),
        ("lora_unet_input_blocks_3_7_attn.lora_down.weight", "no counterpart"),
    ],
)
def test_what_is_not_a_plain_lora_is_refused_with_the_reason(extra: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        names.parse((f"unet.{M}.lora.down.weight", f"unet.{M}.lora.up.weight", extra))


def test_layer_globs_read_dots_and_underscores_alike() -> None:
    assert names.matches(NAME, ["*.attn1.*"]) and names.matches(NAME, ["*attn1_to_q"])
    assert not names.matches(NAME, ["*.attn2.*", "unet_up*"])


def _read(path: Path) -> Factors:
    """The factors of the module `NAME`."""
    return read_lora(Member("x", str(path)), Rules()).factors[NAME]


def _write(path: Path, down: str, up: str, rank: int, **more) -> Path:
    rng = np.random.default_rng(0)
    tensors = {down: rng.random((rank, 6), np.float32), up: rng.random((5, rank), np.float32)}
    tensors |= more.pop("tensors", {})
    save_file(tensors, path, more or None)
    return path


STEM = f"lora_unet_{FOLDED}"


def _kohya(path: Path, alpha: np.ndarray | None = None) -> Path:
    """A file of rank 4."""
    tensors = {} if alpha is None else {f"{STEM}.alpha": alpha}
    return _write(path, f"{STEM}.lora_down.weight", f"{STEM}.lora_up.weight", 4, tensors=tensors)


def _peft(tmp_path: Path, rank: int, **config) -> Adapter:
    path = _write(
        tmp_path / "adapter_model.safetensors",
        f"base_model.model.{M}.lora_A.weight", f"base_model.model.{M}.lora_B.weight", rank,
    )  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return read_adapter(path, tmp_path / "adapter_config.json", Rules())


def test_scales_of_kohya_files(tmp_path: Path) -> None:
    file = _kohya(tmp_path / "a.safetensors", np.array(1.0, np.float16))
    assert read_adapter(file, None, Rules()).modules[NAME].scale == 0.25
    assert read_adapter(file, None, Rules(alpha="one")).modules[NAME].scale == 1
    bare = _kohya(tmp_path / "b.safetensors")
    assert read_adapter(bare, None, Rules()).modules[NAME].scale == 1


def test_scales_of_peft_files(tmp_path: Path) -> None:
    def scale(rank: int, **config) -> float:
        return _peft(tmp_path, rank, r=8, lora_alpha=16, **config).modules[NAME].scale

    assert scale(8) == 2
    assert scale(8, use_rslora=True) == pytest.approx(5.656854)
    assert scale(4, rank_pattern={"to_q": 4}) == 4
    assert scale(8, alpha_pattern={"attn1.to_q": 4}) == 0.5
    assert scale(8, alpha_pattern={"attn2.to_q": 4, "o_q": 1}) == 2  # whole parts of the path only


def test_a_peft_file_without_its_config_has_no_known_scale(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.safetensors", f"base_model.model.{M}.lora_A.weight",
                  f"base_model.model.{M}.lora_B.weight", 2)  # fmt: skip
    with pytest.raises(BadInput, match=r"a\.safetensors.*adapter_config\.json"):
        read_adapter(path, None, Rules())
    assert read_adapter(path, None, Rules(alpha="one")).modules[NAME].scale == 1
    for config in ({}, {"lora_alpha": None}):
        with pytest.raises(BadInput, match="without lora_alpha: the scale is not known"):
            _peft(tmp_path, 2, r=2, **config)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="without lora_alpha"):
        read_adapter(path, tmp_path / "adapter_config.json", Rules())
    with pytest.raises(BadInput, match="IA3"):
        _peft(tmp_path, 2, peft_type="IA3")


def test_where_a_scale_is_known_without_a_config(tmp_path: Path) -> None:
    """ComfyUI files have PEFT stems, a prefix of their own and maybe alphas; GPT-2's blocks are
    called like a component of diffusers."""
    stem = "diffusion_model.double_blocks.0.img_attn.qkv"
    file = _write(tmp_path / "a.safetensors", f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", 4,
                  tensors={f"{stem}.alpha": np.array(8.0, np.float32)})  # fmt: skip
    assert [m.scale for m in read_adapter(file, None, Rules()).modules.values()] == [2]
    bare = _write(tmp_path / "b.safetensors", f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", 4)
    assert [m.scale for m in read_adapter(bare, None, Rules()).modules.values()] == [1]
    stem = "base_model.model.transformer.h.0.attn.c_attn"
    gpt2 = _write(tmp_path / "c.safetensors", f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", 4)
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        read_adapter(gpt2, None, Rules())


def test_an_alpha_is_one_number(tmp_path: Path) -> None:
    file = _kohya(tmp_path / "a.safetensors", np.ones(2, np.float32))
    with pytest.raises(BadInput, match=r"\.alpha has shape \(2,\), expected one number"):
        read_adapter(file, None, Rules())


def test_scales_of_diffusers_files(tmp_path: Path) -> None:
    down, up = f"unet.{M}.lora.down.weight", f"unet.{M}.lora.up.weight"
    bare = _write(tmp_path / "a.safetensors", down, up, 4)
    assert read_adapter(bare, None, Rules()).modules[NAME].scale == 1
    stored = json.dumps({"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"to_k": 1}})
    told = _write(tmp_path / "b.safetensors", down, up, 4, lora_adapter_metadata=stored)
    assert read_adapter(told, None, Rules()).modules[NAME].scale == 2


def test_convolutions_are_flattened_and_half_precision_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    down = rng.random((2, 3, 3, 3), np.float32).astype(np.float16)
    up = rng.random((5, 2, 1, 1), np.float32).astype(np.float16)
    save_file(
        {f"unet.{M}.lora.down.weight": down, f"unet.{M}.lora.up.weight": up},
        tmp_path / "c.safetensors",
    )
    factors = _read(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(factors.down, down.reshape(2, 27).astype(np.float32))
    np.testing.assert_array_equal(factors.up, up.reshape(5, 2).astype(np.float32))
    bits = np.array([0x3F80, 0xC000], "<u2").tobytes()
    assert to_float(bits, "BF16").tolist() == [1.0, -2.0]


def test_ranks_that_disagree_are_refused(tmp_path: Path) -> None:
    tensors = {
        f"unet.{M}.lora.down.weight": np.ones((2, 6), np.float32),
        f"unet.{M}.lora.up.weight": np.ones((5, 3), np.float32),
    }
    save_file(tensors, tmp_path / "r.safetensors")
    with pytest.raises(BadInput, match=r"rank 2 of .*, 3 of"):
        read_adapter(tmp_path / "r.safetensors", None, Rules())
    for down, up in (
        ((0, 6), (5, 0)),
        ((2,), (5, 2)),
        ((2, 6), (5, 2, 3, 3)),
        ((4, 6, 3, 3), (6, 2, 1, 1)),
    ):
        tensors = {
            f"unet.{M}.lora.down.weight": np.ones(down, np.float32),
            f"unet.{M}.lora.up.weight": np.ones(up, np.float32),
        }
        save_file(tensors, tmp_path / "r.safetensors")
        with pytest.raises(BadInput, match=f"unet.{M}: (shapes|rank)"):
            read_adapter(tmp_path / "r.safetensors", None, Rules())


def _file(
    tmp_path: Path, header: dict | bytes, data: bytes = b"", length: int | None = None
) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "h.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_damaged_headers_are_named(tmp_path: Path) -> None:
    good = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    tensors = read_header(_file(tmp_path, good, bytes(8))).tensors
    assert tensors["a"].shape == (2,) and tensors["a"].stop - tensors["a"].start == 8
    cases = [
        ((good, bytes(7), None), "cut short"),
        ((good, bytes(12), None), "overlong"),
        ((good, bytes(8), 10**9), "not a safetensors file, or cut short"),
        ((b"{nonsense", bytes(8), None), "not readable"),
        (({"a": {**good["a"], "shape": [3]}}, bytes(8), None), "do not fit its shape"),
        (({"a": {**good["a"], "shape": 2}}, bytes(8), None), "not readable"),
        (({"a": {**good["a"], "shape": [2.0]}}, bytes(8), None), "not readable"),
        (({"a": {**good["a"], "shape": [-1, -2]}}, bytes(8), None), "do not fit its shape"),
        (({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), None), "not readable"),
        ((b"[" * 10**5, bytes(8), None), "not readable"),
        (({"a": {**good["a"], "dtype": "F4"}}, bytes(8), None), "dtype F4"),
    ]
    for (header, data, length), reason in cases:
        with pytest.raises(BadInput, match=reason):
            read_header(_file(tmp_path, header, data, length))
    (tmp_path / "tiny").write_bytes(b"abc")
    with pytest.raises(BadInput, match="tiny: not a safetensors file: 3 bytes"):
        read_header(tmp_path / "tiny")


def test_alphas_may_be_integers_and_weights_may_not(tmp_path: Path) -> None:
    file = _kohya(tmp_path / "a.safetensors", np.array(2, np.int64))
    assert read_adapter(file, None, Rules()).modules[NAME].scale == 0.5
    assert np.isfinite(_read(file).down).all()
    tensors = {
        f"{STEM}.lora_down.weight": np.ones((2, 6), np.int8),
        f"{STEM}.lora_up.weight": np.ones((5, 2), np.int8),
    }
    save_file(tensors, tmp_path / "q.safetensors")
    with pytest.raises(BadInput, match="dtype I8, expected one of F64, F32, F16, BF16"):
        read_adapter(tmp_path / "q.safetensors", None, Rules())


@pytest.mark.parametrize(
    "config", ['{"lora_alpha": [1]}', '{"lora_alpha": 1, "alpha_pattern": {"(": 1}}', "[1]", "{"]
)
def test_configs_of_an_unexpected_form_are_told(tmp_path: Path, config: str) -> None:
    path = _write(tmp_path / "a.safetensors", f"base_model.model.{M}.lora_A.weight",
                  f"base_model.model.{M}.lora_B.weight", 2)  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(BadInput, match=r"a\.safetensors: adapter_config\.json or metadata"):
        read_adapter(path, tmp_path / "adapter_config.json", Rules())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
def test_a_failing_machine_is_not_the_fault_of_a_file(tmp_path, monkeypatch, number) -> None:
    """As a bad file it would be left out for good."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "not now")

    file = _kohya(tmp_path / "a.safetensors", np.array(2, np.int64))
    with monkeypatch.context() as m:
        m.setattr("builtins.open", fail)
        with pytest.raises(OSError, match="not now"):
            read_adapter(file, None, Rules())
        with pytest.raises(OSError, match="not now"):
            _read(file)
        with pytest.raises(ActprobeError, match=r"not now.*run again") as e:
            read_lora(Member("x", str(file)), Rules(), ("content", "0" * 64))
        assert not isinstance(e.value, BadInput)
    with pytest.raises(BadInput, match="No such file"):
        read_adapter(tmp_path / "nothing.safetensors", None, Rules())
