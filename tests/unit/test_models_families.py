"""What a `config.json` says: sizes in every form, and which models are refused by name."""

import json

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from actprobe.config import resolve
from actprobe.experiment import shapes
from actprobe.models import families
from actprobe.models.architectures import FAMILIES

SIZES = {  # layers and width of transformers' default configs
    "llama": (32, 4096),
    "bart": (12, 1024),  # encoder_layers
    "t5": (6, 512),  # num_layers, and num_decoder_layers beside it
    "fsmt": (12, 1024),
    "prophetnet": (12, 1024),
    "xlm": (12, 2048),
    "dbrx": (24, 2048),
    "nemotron_h": (4, 4096),  # the length of a list
    "gemma3n_text": (35, 2048),  # intermediate_size is a list
    "ernie4_5_vl_moe": (28, 2560),  # moe_intermediate_size is a list
    "kosmos-2": (24, 2048),  # "layers" of a text_config
    "qwen2_5_omni": (28, 3584),  # thinker_config.text_config
    "t5gemma": (26, 2304),  # of the encoder
    "llava": (32, 4096),
}


def described(model_type, **changes):
    config = CONFIG_MAPPING[model_type](**changes).to_dict()
    return json.loads(json.dumps(config, default=str))


@pytest.mark.parametrize("model_type", SIZES)
def test_c5_sizes_are_found_under_every_name(model_type):
    config = described(model_type)
    assert (families.n_layers(config), families.d_model(config)) == SIZES[model_type]


def config_of(folder, **more):
    return resolve({"experiment": "e", "models": {"m": {"source": str(folder), **more}}})


@pytest.mark.parametrize(
    "model_type", [*SIZES, "segformer", "vit", "perceiver", "glpn", "hrm_text"]
)
def test_c5_every_config_is_sized_or_given_defaults(model_type, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(described(model_type)))
    model = shapes.model(config_of(tmp_path), "m")
    assert all(isinstance(v, int) and v > 0 for v in vars(model).values())


@pytest.mark.parametrize("hidden_size", [None, 0, "768", [512, 512], True, 64.0])
def test_c5_a_size_in_an_unusual_form_does_not_stop_the_plan(hidden_size, tmp_path):
    config = {"hidden_size": hidden_size, "num_attention_heads": 0, "text_config": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = shapes.model(config_of(tmp_path, n_layers=3), "m")
    assert model.layers == 3 and model.d in (512, shapes.D_MODEL)


REFUSED = {
    "deepseek_v4": r"'deepseek_v4' carries 4 residual streams side by side \(hc_mult: 4\)",
    "gemma3n_text": r"'gemma3n_text' carries 4 residual streams .* \(altup_num_inputs: 4\)",
    "big_bird": "attention_type: block_sparse attends to all tokens from the first short batch on",
    "rwkv": "halves its residual stream every 6 layers",
    "canine": "pooled into fewer positions",
    "xlm": "its layers are no modules",
}


@pytest.mark.parametrize("model_type", REFUSED)
@pytest.mark.parametrize("kind", ["resid_post", "mlp_out"])
def test_a5_families_without_a_plain_stream_are_refused_in_the_plan(model_type, kind):
    import re

    assert re.search(REFUSED[model_type], families.refusal(described(model_type), kind))


def test_what_makes_a_refused_family_readable():
    for model_type, changes in (
        ("big_bird", {"attention_type": "original_full"}),
        ("rwkv", {"rescale_every": 0}),
        ("rwkv", {"num_hidden_layers": 4}),
    ):
        assert families.refusal(described(model_type, **changes), "resid_post") is None


def test_first_layers_are_loaded_alone_where_that_changes_none_of_them():
    bert, albert, clip = (described(t) for t in ("bert", "albert", "clip"))
    assert families.may_cut(bert, 2) and not families.may_cut(bert, 12)
    assert not families.may_cut(albert, 2)  # the depth tells which group of weights a layer has
    assert not families.may_cut(clip, 2)  # a part of a larger model
    assert not families.may_cut({"model_type": "unheard_of", "num_hidden_layers": 4}, 2)


def test_masks_are_left_out_only_where_nothing_looks_ahead():
    assert not families.needs_mask({"model_type": "llama"})
    assert families.needs_mask({"model_type": "llama", "use_bidirectional_attention": True})
    assert families.needs_mask({"model_type": "llama", "is_causal": False})
    assert families.needs_mask({"model_type": "paligemma", "text_config": {"model_type": "gemma"}})
    assert families.needs_mask({"model_type": "bert"})
    assert families.needs_mask({"model_type": "never_seen"})


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"rope_parameters": {"rope_type": "default"}, "max_position_embeddings": 99}, (None, None)),
        ({"rope_scaling": {"type": "dynamic"}, "max_position_embeddings": 99}, (99, None)),
        ({"rope_parameters": {"rope_type": "longrope"}, "max_position_embeddings": 99,
          "original_max_position_embeddings": 9}, (None, 9)),
        ({"text_config": {"rope_parameters": {
            "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 7},
            "sliding_attention": {"rope_type": "default"}}}}, (None, 7)),
        ({"max_position_embeddings": 99}, (None, None)),
    ],
)  # fmt: skip
def test_where_positions_depend_on_the_longest_row(config, found):
    assert families.longest_alike(config) == found


def test_unmapped_families_say_what_they_do_have():
    reason = families.refusal({"model_type": "granite"}, "attn_out")
    assert "not mapped for the model family 'granite'" in reason and "resid_pre and" in reason
    assert all(f in reason for f in FAMILIES)
