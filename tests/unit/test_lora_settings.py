"""PEFT's settings: which are applied, which leave W alone, which are refused by name; other tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lora_tools as tools
import numpy as np
import pytest
from configs import edited
from safetensors.numpy import save_file

from actprobe import lora
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import store
from actprobe.lora import index, settings
from actprobe.lora.adapter import Adapter, read_adapter
from actprobe.lora.collection import Member
from actprobe.lora.read import read_lora
from actprobe.lora.records import Rules

ATTENTION = "base_model.model.model.layers.0.self_attn"
STORED = Rules()
EXPERTS = "base_model.model.model.layers.0.mlp.experts"

# What PEFT 0.21.2 writes into adapter_config.json for a plain LoRA.
PLAIN = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None,
    "auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "base_model_name_or_path": "base",
    "bias": "none", "corda_config": None, "ensure_weight_tying": False, "eva_config": None,
    "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "kasa_config": None, "layer_replication": None, "layers_pattern": None,
    "layers_to_transform": None, "loftq_config": {}, "lora_alpha": 8, "lora_bias": False,
    "lora_dropout": 0.1, "lora_ga_config": None, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "monteclora_config": None,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 4,
    "rank_pattern": {}, "revision": None, "target_modules": ["q_proj", "v_proj"],
    "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None,
    "use_bdlora": None, "use_dora": False, "use_qalora": False, "use_rslora": False,
    "velora_config": None,
}  # fmt: skip


def _pair(stem: str, rank: int = 4, d_in: int = 6, d_out: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(stem))
    return {
        f"{stem}.lora_A.weight": rng.random((rank, d_in), np.float32),
        f"{stem}.lora_B.weight": rng.random((d_out, rank), np.float32),
    }


def _write(folder: Path, tensors: dict[str, Any], **changed: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | changed))
    return folder / "adapter_model.safetensors"


def _read(path: Path, rules: Rules = STORED) -> Adapter:
    return read_adapter(path, path.parent / "adapter_config.json", rules)


def _plain(folder: Path, rules: Rules = STORED, **changed: Any) -> Adapter:
    return _read(_write(folder, _pair(f"{ATTENTION}.q_proj"), **changed), rules)


def test_a7_target_parameters_hold_the_factors_of_all_experts(tmp_path: Path) -> None:
    """Three experts of rank 4: one tensor of rank 12, which PEFT cuts into experts (scale 8/4)."""
    tensors = _pair(EXPERTS, 12) | _pair(f"{ATTENTION}.q_proj")
    path = _write(tmp_path / "a", tensors, target_parameters=["mlp.experts.down_proj"])
    for rules in (Rules(), Rules(alpha="one"), Rules(ignore_settings=("target_parameters",))):
        with pytest.raises(
            BadInput, match=r'target_parameters \["mlp.experts.down_proj"\]: .*expert'
        ):
            _read(path, rules)
    with pytest.raises(
        BadInput, match=r"experts: tensors of rank 12, adapter_config.json says r: 4"
    ):
        _read(_write(tmp_path / "b", tensors))
    nested = _pair(f"{EXPERTS}.base_layer", 12) | _pair(EXPERTS, 12)
    with pytest.raises(BadInput, match="one LoRA inside another"):
        _read(_write(tmp_path / "c", nested, r=12))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("monteclora_config", {"num_samples": 8}),
        ("target_parameters", ["experts.up"]),
        ("peft_type", "LOKR"),
    ],
)
def test_a7_settings_that_make_w_something_else_are_refused_by_name(
    tmp_path: Path, field: str, value: Any
) -> None:
    for rules in (Rules(), Rules(alpha="one"), Rules(ignore_settings=(field,))):
        with pytest.raises(BadInput) as e:
            _plain(tmp_path, rules, **{field: value})
        assert f"adapter_config.json: {field} {json.dumps(value)}: " in str(e.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("init_lora_weights", v) for v in ("pissa", "pissa_niter_4", "olora", "corda", "loftq",
                                             "lora_ga", "what comes next")),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("alora_invocation_tokens", [1, 2]),
        ("arrow_config", {"top_k": 3}),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("use_next_idea", 3),
    ],
)  # fmt: skip
def test_a7_doubtful_and_unknown_settings_are_refused_unless_they_are_ignored(
    tmp_path: Path, field: str, value: Any
) -> None:
    with pytest.raises(BadInput) as e:
        _plain(tmp_path, **{field: value})
    assert f"{field} {json.dumps(value)}: " in str(e.value)
    assert f"`ignore_settings: [{field}]`" in str(e.value)
    read = _plain(tmp_path, Rules(ignore_settings=(field,)), **{field: value})
    assert [m.scale for m in read.modules.values()] == [2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("init_lora_weights", v) for v in (True, False, "gaussian", "eva", "orthogonal", "mica")),
        ("bias", "all"),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["score"]),
        ("trainable_token_indices", [1, 3]),
        ("layers_to_transform", [0, 2]),
        ("exclude_modules", ["layers.1"]),
        ("eva_config", {"rho": 2}),
        ("velora_config", {"scale": 1}),
        ("use_next_idea", False),
        ("next_config", None),
    ],
)
def test_a7_settings_that_leave_w_alone_are_let_through(
    tmp_path: Path, field: str, value: Any
) -> None:
    assert [m.scale for m in _plain(tmp_path, **{field: value}).modules.values()] == [2]


def test_every_field_is_in_one_list_alone() -> None:
    lists = [
        settings._APPLIED - {"init_lora_weights"},
        settings._HARMLESS,
        settings._REFUSED.keys(),
        settings._DOUBTFUL.keys(),
    ]
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert PLAIN.keys() <= set().union(*lists), "every field of PEFT 0.21"


def test_settings_in_the_metadata_of_diffusers_are_checked_alike(tmp_path: Path) -> None:
    stem = f"unet.{tools.BLOCK}.attn1.to_q"
    for changed, reason in (
        ({}, ""),
        ({"unet.use_dora": True}, "metadata: unet.use_dora true: "),
        ({"text_encoder.init_lora_weights": "pissa"}, 'text_encoder.init_lora_weights "pissa"'),
        ({"unet.r": 3}, "tensors of rank 4, metadata says r: 3"),
    ):
        told = {f"unet.{k}": v for k, v in PLAIN.items()} | changed
        save_file(
            _pair(stem), tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(told)}
        )
        if reason:
            with pytest.raises(BadInput, match=reason):
                read_adapter(tmp_path / "a.safetensors", None, Rules())
        else:
            (m,) = read_adapter(tmp_path / "a.safetensors", None, Rules()).modules.values()
            assert m.scale == 2


def test_patterns_match_as_in_peft(tmp_path: Path) -> None:
    tensors = {}
    ranks = {"q_proj": 2, "v_proj": 3, "o_proj": 4}
    for layer in (0, 1):
        for name, rank in ranks.items():
            tensors |= _pair(f"base_model.model.model.layers.{layer}.self_attn.{name}", rank)
    path = _write(
        tmp_path,
        tensors,
        lora_alpha=12,
        rank_pattern={"q_proj": 2, r".*layers\.[01]\.self_attn\.v_proj": 3},
        alpha_pattern={"^model.layers.1.self_attn.q_proj": 5, "proj": 9, "v_proj": 6},
    )
    scales = {n.removeprefix("model_layers_"): m.scale for n, m in _read(path).modules.items()}
    assert scales == {
        "0_self_attn_q_proj": 6, "1_self_attn_q_proj": 2.5, "0_self_attn_v_proj": 2,
        "1_self_attn_v_proj": 2, "0_self_attn_o_proj": 3, "1_self_attn_o_proj": 3,
    }  # fmt: skip


EXTRA = [
    "base_model.model.score.weight",
    "base_model.model.classifier.out_proj.bias",
    "base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias",
    f"{ATTENTION}.q_proj.lora_B.bias",
    "base_model.model.model.embed_tokens.weight",
    "base_model.model.model.embed_tokens.lora_embedding_A",
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    "base_model.model.pooler.query",
]


@pytest.mark.parametrize("name", EXTRA)
def test_f_tensors_beside_the_lora_are_left_and_named(tmp_path: Path, name: str) -> None:
    tensors = _pair(f"{ATTENTION}.q_proj") | {name: np.full((3, 6), np.nan, np.float32)}
    path = _write(tmp_path, tensors, modules_to_save=["pooler"])
    adapter = _read(path)
    assert adapter.extra == (f"{name} (3 x 6)",) and len(adapter.modules) == 1
    assert adapter.bytes == 4 * (4 * 6 + 5 * 4)
    config = str(path.parent / "adapter_config.json")
    content = read_lora(Member("x", str(path), config), Rules())
    (factors,) = content.factors.values()
    np.testing.assert_array_equal(factors.up, tensors[f"{ATTENTION}.q_proj.lora_B.weight"])
    with pytest.raises(
        BadInput, match=r"1 tensors beside the LoRA, e\.g\. .*`extra_tensors: ignore`"
    ):
        _read(path, Rules(extra_tensors="refuse"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{ATTENTION}.q_proj.lora_magnitude_vector", "DoRA"),
        (f"{ATTENTION}.q_proj.lora_diag", "KaSA"),
        (f"{ATTENTION}.q_proj.lora_E", "AdaLoRA"),
        (f"{ATTENTION}.k_proj.vera_lambda_b", "VeRA"),
        (f"{ATTENTION}.k_proj.ia3_l", "IA3"),
        (f"{ATTENTION}.k_proj.oft_R", "OFT"),
        (f"{ATTENTION}.k_proj.hada_w1_a", "LoHa"),
        ("base_model.internal_xlora_classifier.layers.0.weight", "X-LoRA"),
        (f"{ATTENTION}.q_proj.lora_gate.weight", "unknown tensor"),
        (f"{ATTENTION}.q_proj.lora_A.style.weight", "2 adapters in one file: default, style"),
        ("base_model.model.pooler.query", "unknown tensor"),
    ],
)  # fmt: skip
def test_tensors_that_change_w_are_no_extra_tensors(tmp_path: Path, name: str, reason: str) -> None:
    tensors = _pair(f"{ATTENTION}.q_proj") | {name: np.ones((3, 6), np.float32)}
    with pytest.raises(BadInput, match=reason):
        _read(_write(tmp_path, tensors))


def test_peft_type_is_told_before_names(tmp_path: Path) -> None:
    tensors = {f"{ATTENTION}.q_proj.some_new_factor": np.ones(3, np.float32)}
    with pytest.raises(BadInput, match='peft_type "BOFT": expected LORA'):
        _read(_write(tmp_path, tensors, peft_type="BOFT"))


def test_an_alpha_of_zero_or_against_the_settings_is_refused(tmp_path: Path) -> None:
    stem = f"unet.{tools.BLOCK}.attn1.to_q"
    for alpha, settings_, reason in (
        (0.0, None, "alpha is 0"),
        (2.0, {"unet.lora_alpha": 8}, r"gives the scale 0\.5, the settings give 2"),
    ):
        told = {"lora_adapter_metadata": json.dumps(settings_)} if settings_ else None
        tensors = _pair(stem) | {f"{stem}.alpha": np.array(alpha, np.float32)}
        save_file(tensors, tmp_path / "a.safetensors", told)
        with pytest.raises(BadInput, match=reason):
            read_adapter(tmp_path / "a.safetensors", None, Rules())
        (m,) = read_adapter(tmp_path / "a.safetensors", None, Rules(alpha="one")).modules.values()
        assert m.scale == 1


def test_the_config_of_a_folder_is_that_of_its_adapter_model(tmp_path: Path) -> None:
    _write(tmp_path / "x", _pair(f"{ATTENTION}.q_proj"), lora_alpha=16)
    tools.write_lora(tmp_path / "x" / "lora.safetensors")
    found = {m.id: m for m in tools.members(tmp_path)}
    assert found["x"].config and found["x/lora"].config is None


def test_f_classifiers_of_peft_are_read_and_what_was_left_is_told(tmp_path: Path) -> None:
    for n in range(4):
        head = {"base_model.model.score.weight": np.full((2, 6), n, np.float32)} if n else {}
        tensors = _pair(f"{ATTENTION}.q_proj") | head
        _write(tmp_path / "files" / f"l{n}", tensors, task_type="SEQ_CLS")
    (tmp_path / "labels.csv").write_text("id,label\n")
    loras = {"c": {"files": str(tmp_path / "files"), "representations": ["stats", "recipe_only"]}}
    cfg = tools.resolved(tmp_path, loras)
    made = tools.run(cfg)
    found = index.Index.open(tools.path_of(made, "c"))
    assert not any(found.refused) and sorted(set(found["extra"])) == [
        "", "base_model.model.score.weight (2 x 6)",
    ]  # fmt: skip
    columns = store.read_header(tools.path_of(made, "c/recipe_only"))["facts"]["columns"]
    assert any("score.weight" in c for c in columns), "who has a head is part of the recipe"
    features = lora.telling(made.paths("features"))
    (told,) = lora.left_out(made.paths("lora_index"), features).to_dict("records")
    assert told["id"].startswith("3 LoRAs, e.g. l")
    assert told["reason"] == "read without base_model.model.score.weight (2 x 6)"
    cfg = edited(cfg, ["loras", "c", "extra_tensors"], "refuse")
    assert tools.to_make(cfg)["lora_index"] == 1
    refused = index.Index.open(tools.path_of(tools.run(cfg), "c"))
    assert (refused.refused != "").sum() == 3
    cfg = edited(cfg, ["loras", "c", "on_bad_file"], "stop")
    with pytest.raises(ActprobeError, match=r"l\d: 1 tensors beside the LoRA"):
        tools.run(cfg)
