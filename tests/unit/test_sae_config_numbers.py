"""A10: whatever number or word an SAE's config holds is checked while planning, and refused by name."""

import json

import numpy as np
import pytest
import yaml
from sae_tiny import F, K, activations, config, parameters, rows, save_saelens, targets
from test_sae_formats import (
    dictionary,
    llama_scope,
    lm_saes,
    old_saelens,
    saev,
    sparsify,
    transcoder,
)

from actprobe.base.errors import BadInput, ConfigError
from actprobe.sae.formats import describe

NO_COUNT = [0, -3, 8.7, "8", True, [8], float("nan"), float("inf")]


def edit(path, **change):
    """Change keys of a JSON or YAML file; a dotted one lies deeper, a value of `...` is taken out."""
    load = yaml.safe_load if path.suffix == ".yaml" else json.loads
    content = load(path.read_text())
    for key, value in change.items():
        *above, last = key.split("__")
        at = content
        for name in above:
            at = at.setdefault(name, {})
        if value is ...:
            del at[last]
        else:
            at[last] = value
    path.write_text((yaml.safe_dump if path.suffix == ".yaml" else json.dumps)(content))


def saelens_topk(folder, p):
    save_saelens(folder, p, architecture="topk", k=K)


# name: writer, the config's file, and its keys for: width of the input, number of latents, k
CONFIGS = {
    "saelens": (saelens_topk, "cfg.json", "d_in", "d_sae", "k"),
    "saelens_5": (old_saelens, "cfg.json", "d_in", "d_sae", "activation_fn_kwargs__k"),
    "llama_scope": (llama_scope, "hyperparams.json", "d_model", "d_sae", None),
    "lm_saes": (lm_saes(act_fn="topk"), "config.json", "d_model", None, "top_k"),
    "sparsify": (sparsify, "cfg.json", "d_in", "num_latents", "k"),
    "dictionary_learning": (
        dictionary("AutoEncoderTopK"), "config.json", "trainer__activation_dim",
        "trainer__dict_size", "trainer__k",
    ),
    "circuit_tracer": (transcoder("topk"), "config.yaml", None, None, "k"),
}  # fmt: skip
KEYS = [(name, key) for name, (_, _, *keys) in CONFIGS.items() for key in keys if key]


@pytest.mark.parametrize("value", NO_COUNT, ids=str)
@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a10_what_is_no_count_is_refused_with_its_key(tmp_path, name, key, value):
    write, file, *_ = CONFIGS[name]
    write(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / file
    if (name, key, value) == ("sparsify", "num_latents", 0):
        pytest.skip("it stands for the expansion factor")
    edit(path, **{key: value})
    with pytest.raises(BadInput) as e:
        describe(tmp_path / "sae")
    said = str(e.value)
    assert said.startswith(f"{path}: {key.replace('__', '.')} is {value!r}; expected"), said


@pytest.mark.parametrize("name", [n for n, (*_, k) in CONFIGS.items() if k])
def test_a10_no_more_latents_can_fire_than_there_are(tmp_path, name):
    write, file, *_, key = CONFIGS[name]
    write(tmp_path / "sae", parameters())
    edit(tmp_path / "sae" / file, **{key: F + 1})
    with pytest.raises(
        BadInput, match="k is 101; expected a whole number from 1 to its 100 latents"
    ):
        describe(tmp_path / "sae")
    edit(tmp_path / "sae" / file, **{key: F})
    assert describe(tmp_path / "sae").k == F
    edit(tmp_path / "sae" / file, **{key: 8.0})  # as some write whole numbers
    assert describe(tmp_path / "sae").k == 8


def test_a10_saev_may_ask_for_more_than_there_are(tmp_path):
    """It takes the smaller of the two."""
    saev("TopK")(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "sae.pt"
    path.write_bytes(path.read_bytes().replace(b'"top_k": 8', b'"top_k": 800'))
    assert describe(tmp_path / "sae").k == F


def test_a10_more_latents_than_can_be_counted(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters(), d_sae=1 << 31)
    with pytest.raises(BadInput, match="2,147,483,648 latents; expected at most 2,147,483,647"):
        describe(folder)


@pytest.mark.parametrize(
    ("writer", "file", "key", "value", "expected"),
    [
        (saelens_topk, "cfg.json", "dtype", "int8", "one of float32, float64"),
        (saelens_topk, "cfg.json", "dtype", 32, "a text"),
        (saelens_topk, "cfg.json", "apply_b_dec_to_input", "yes", "true or false"),
        (saelens_topk, "cfg.json", "rescale_acts_by_decoder_norm", 1, "true or false"),
        (saelens_topk, "cfg.json", "architecture", ["topk"], "a text"),
        (saelens_topk, "cfg.json", "metadata", [1], "a mapping"),
        (old_saelens, "cfg.json", "activation_fn_str", 3, "a text"),
        (lm_saes(), "config.json", "dtype", "torch.int8", "one of float32, float64"),
        (lm_saes(), "config.json", "expansion_factor", 0, "a finite number above 0"),
        (lm_saes(), "config.json", "expansion_factor", -2, "a finite number above 0"),
        (lm_saes(), "config.json", "sparsity_include_decoder_norm", "no", "true or false"),
        (lm_saes(), "config.json", "use_decoder_bias", 0, "true or false"),
        (llama_scope, "hyperparams.json", "jump_relu_threshold", -0.1, "a finite number of at least 0"),
        (llama_scope, "hyperparams.json", "jump_relu_threshold", None, "a finite number of at least 0"),
        (sparsify, "cfg.json", "signed", "true", "true or false"),
        (sparsify, "cfg.json", "transcode", 1, "true or false"),
        (dictionary("AutoEncoder"), "config.json", "trainer__layer", "4", "a whole number"),
        (dictionary("AutoEncoder"), "config.json", "trainer__dict_class", 4, "a text"),
        (dictionary("AutoEncoder"), "config.json", "buffer__ctx_len", 0, "a whole number"),
        (transcoder(), "config.yaml", "model_name", 7, "a text"),
    ],
)  # fmt: skip
def test_a10_other_values_of_the_wrong_kind(tmp_path, writer, file, key, value, expected):
    writer(tmp_path / "sae", parameters())
    edit(tmp_path / "sae" / file, **{key: value})
    with pytest.raises(BadInput) as e:
        describe(tmp_path / "sae")
    said = str(e.value)
    assert f"{key.replace('__', '.')} is {value!r}; expected {expected}" in said
    assert "fetch" in said or "mapping" in said  # what to do about it


@pytest.mark.parametrize(
    ("writer", "file", "change", "said"),
    [
        (saelens_topk, "cfg.json", {"architecture": "topk2"}, "architecture 'topk2'; known are"),
        (
            saelens_topk,
            "cfg.json",
            {"activation_fn": "gelu"},
            "activation_fn 'gelu'; known are relu",
        ),
        (
            saelens_topk,
            "cfg.json",
            {"normalize_activations": 3},
            "normalize_activations 3; known are",
        ),
        (saelens_topk, "cfg.json", {"normalize_activations": True}, "normalize_activations True"),
        (saelens_topk, "cfg.json", {"reshape_activations": "heads"}, "reshape_activations 'heads'"),
        (lm_saes(), "config.json", {"act_fn": "prolu"}, "act_fn 'prolu'; known are relu"),
        (lm_saes(), "config.json", {"norm_activation": "layer"}, "norm_activation 'layer'"),
        (transcoder(), "config.yaml", {"activation": "gelu"}, "activation 'gelu'; known are relu"),
    ],
)
def test_a10_unknown_words_are_refused_with_the_known_ones(tmp_path, writer, file, change, said):
    writer(tmp_path / "sae", parameters())
    edit(tmp_path / "sae" / file, **change)
    with pytest.raises(BadInput, match=f"{file}: not supported: {said}"):
        describe(tmp_path / "sae")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a10_an_average_norm_is_above_zero(tmp_path, value):
    from safetensors.numpy import load_file, save_file

    lm_saes()(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "sae_weights.safetensors"
    state = load_file(path)
    name = next(n for n in state if n.startswith("dataset_average"))
    save_file(state | {name: np.array(value, np.float32)}, path)
    with pytest.raises(BadInput, match=rf"{name} is .*; expected a norm above 0"):
        describe(tmp_path / "sae")


def test_a10_a_config_is_refused_while_planning_and_with_its_entry(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters(), architecture="topk", k=0)
    with pytest.raises(
        ConfigError, match=r"saes\.s\.source: .*cfg\.json: k is 0; expected a whole"
    ):
        targets(
            config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, {"a": rows(3)})
        )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"k"', "{" * 10**5])
@pytest.mark.parametrize("name", CONFIGS)
def test_a10_files_that_hold_no_settings(tmp_path, name, text):
    write, file, *_ = CONFIGS[name]
    write(tmp_path / "sae", parameters())
    (tmp_path / "sae" / file).write_text(text)
    with pytest.raises(BadInput, match=str(tmp_path / "sae" / file)):
        describe(tmp_path / "sae")
