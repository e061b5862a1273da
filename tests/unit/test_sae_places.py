"""A11, A15: whatever an SAE's files say of the activations that it was made for is compared with
those that it is asked to encode: hooks, layers, models, BOS, lengths of texts, heads, processing."""

import json
import re

import numpy as np
import pytest
from configs import edited
from sae_tiny import (
    D,
    F,
    activations,
    batch,
    codes,
    config,
    dense,
    parameters,
    rows,
    save_saelens,
    targets,
)
from test_sae_encode import assert_same
from test_sae_formats import (
    HOOK,
    dictionary,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    llama_scope,
    lm_saes,
    sparsify,
    transcoder,
    write_json,
)

from actprobe import sae
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store
from actprobe.sae.checks import KINDS, mismatches
from actprobe.sae.formats import describe


def refused(folder, site="resid_post.4", names=("org/tiny", "m"), d=None, **more):
    """What is found to differ, by kind."""
    return mismatches(describe(folder), site, list(names), d, **more)


def saelens(folder, meta=None, **cfg):
    """A SAELens folder whose metadata is this alone; without it, of a version before 6."""
    save_saelens(folder, parameters(), **cfg)
    path = folder / "cfg.json"
    content = json.loads(path.read_text())
    if meta is None:
        del content["metadata"]
    else:
        content["metadata"] = meta
    write_json(path, content)
    return folder


# -- A11: hooks


@pytest.mark.parametrize("meta", [
    {"hook_name": "blocks.9.hook_resid_post"},  # no sae_lens_version
    {"hook_name": "blocks.9.hook_resid_post", "sae_lens_version": "6.1.0"},
    {"hook_name": "blocks.9.hook_resid_post", "sae_lens_version": "5.0.0"},
    {"hook_point": "blocks.9.hook_resid_post"},
    {"hf_hook_name": "model.layers.9"},
    {"hook_layer": 9},
    {"hook_name": "blocks.{layer}.hook_resid_post", "hook_layer": 9},
])  # fmt: skip
def test_a11_a_hook_in_the_metadata_is_checked_whatever_the_version(tmp_path, meta):
    found = refused(saelens(tmp_path / "sae", meta))
    assert set(found) == {"site"} and "9" in found["site"]


@pytest.mark.parametrize("cfg", [
    {"hook_name": "blocks.9.hook_resid_post"},
    {"hook_point": "blocks.9.hook_resid_post", "hook_point_layer": 9},
    {"hook_point_layer": 9},
    {"hf_hook_name": "gpt_neox.layers.9"},
])  # fmt: skip
def test_a11_a_hook_beside_the_metadata_is_checked(tmp_path, cfg):
    """Before version 6, and where a newer file has it twice."""
    assert "site" in refused(saelens(tmp_path / "old", **cfg))
    assert "site" in refused(saelens(tmp_path / "new", {"sae_lens_version": "6.1.0"}, **cfg))


def test_a11_two_hooks_that_differ(tmp_path):
    meta = {"hook_name": HOOK, "sae_lens_version": "6.1.0"}
    with pytest.raises(Exception, match=r"metadata\.hook_name is 'blocks\.4\..* and hook_name is"):
        describe(saelens(tmp_path / "a", meta, hook_name="blocks.9.hook_resid_post"))
    assert refused(saelens(tmp_path / "b", meta | {"hook_layer": 9})) == {
        "site": f"it names both layer 9 and {HOOK}"
    }
    other = refused(saelens(tmp_path / "c", meta | {"hf_hook_name": "model.layers.9"}))
    assert other["site"] == "it was made for model.layers.9 (resid_post.9), not resid_post.4"
    assert not refused(saelens(tmp_path / "d", meta | {"hf_hook_name": "model.layers.4"}))


@pytest.mark.parametrize(
    ("folder", "site", "good"),
    [
        ("blocks.9.hook_resid_pre", "resid_post.4", False),
        ("blocks.9.hook_resid_pre", "resid_post.8", True),
        ("gemma_2b_blocks.12.hook_resid_post_16384", "resid_post.4", False),
        ("v5_32k_layer_9", "resid_post.4", False),
        ("v5_32k_layer_4", "resid_post.4", True),
        ("mistral_7b_layer_8", "resid_post.4", False),
        ("resid_post_layer_9", "resid_post.4", False),
        ("my-sae", "resid_post.4", True),
        ("multilayer_9", "resid_post.4", True),
    ],
)
def test_a11_the_folder_speaks_where_the_config_does_not(tmp_path, folder, site, good):
    path = saelens(tmp_path / folder, {"model_name": "tiny"})
    assert bool(refused(path, site)) != good
    named = saelens(tmp_path / folder, {"hook_name": "blocks.7.hook_mlp_out"})
    assert not refused(named, "mlp_out.7")


def test_a11_gemma_scope_in_a_folder_of_ones_own(tmp_path):
    """layer_20/width_16k says the layer; only the repository's name says the site."""
    folder = tmp_path / "layer_20" / "width_16k" / "average_l0_71"
    folder.parent.mkdir(parents=True)
    gemma_scope(folder, parameters())
    assert refused(folder) == {"site": "it was made for layer 20, not resid_post.4"}
    assert not refused(folder, "resid_post.20") and not refused(folder, "mlp_out.20")


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("model.layers.17.output", "resid_post.17"),
        ("model.layers.17.self_attn.o_proj.input", "z.17"),
        ("model.layers.17.post_feedforward_layernorm.output", "mlp_out.17"),
        ("model.layers.17.pre_feedforward_layernorm.output", "mlp_in.17"),
    ],
)
def test_a11_the_hook_of_gemma_scope_2_stands_in_its_config(tmp_path, hook, site):
    folder = tmp_path / "resid_post" / "layer_17_width_16k_l0_small"
    gemma_scope_2(folder, parameters())
    cfg = {"architecture": "jump_relu", "model_name": "tiny", "hf_hook_point_in": hook}
    write_json(folder / "config.json", cfg)
    assert not refused(folder, site, extracted=True)
    assert "site" in refused(folder, "resid_post.4")
    moved = folder.rename(folder.with_name("layer_9_width_16k_l0_small"))
    assert "layer 9" in refused(moved, site)["site"]


@pytest.mark.parametrize("write", [
    lambda f, p: llama_scope(f, p), lm_saes(), dictionary("AutoEncoder"), goodfire, transcoder(),
])  # fmt: skip
def test_a11_every_format_that_names_a_place_is_checked(tmp_path, write):
    write(tmp_path / "sae", parameters())
    other = refused(tmp_path / "sae", "resid_post.5")
    assert "site" in other and "4" in other["site"]


def test_a11_the_module_of_sparsify_and_what_a_dictionary_reads(tmp_path):
    sparsify(tmp_path / "layers.9", parameters())
    assert "resid_post.9" in refused(tmp_path / "layers.9")["site"]
    dictionary("AutoEncoder")(tmp_path / "in", parameters())
    path = tmp_path / "in" / "config.json"
    cfg = json.loads(path.read_text())
    write_json(path, cfg | {"buffer": {"io": "in", "ctx_len": 128}})
    assert "resid_pre.4" in refused(tmp_path / "in", "resid_post.4")["site"]
    assert not refused(tmp_path / "in", "resid_pre.4")


def test_a11_heads_side_by_side_are_no_residual_stream(tmp_path):
    folder = saelens(tmp_path / "sae", {"hook_name": HOOK}, reshape_activations="hook_z")
    assert set(refused(folder)) == {"processing"}


def test_a11_another_model_is_refused_wherever_it_is_named(tmp_path):
    for folder in (saelens(tmp_path / "a", {"model_name": "other"}),
                   saelens(tmp_path / "b", None, model_name="other"),
                   saelens(tmp_path / "c", {}, model_name="other")):  # fmt: skip
        assert refused(folder)["model"] == "it was made for the model other, not org/tiny"


# -- A15: how texts begin and how long they are


def read_by(cache, n_tokens, n_bos, n=9, name="a"):
    """Activations of `m` at resid_post.4 as extraction leaves them; the SAE's target reads them."""
    [t] = activations(cache, {name: rows(n)}, n_tokens=np.asarray(n_tokens))
    facts = {"n_rows": n, "n_bos": n_bos}
    arrays = {"x": rows(n), "n_tokens": np.asarray(n_tokens, np.int32)}
    store.publish([t.path], [store.write_h5(t.path, arrays, t.record, facts)])
    return [t]


def encode(cache, folder, known, **entry):
    cfg = config(cache, {"s": {"source": str(folder)} | entry})
    ts = targets(cfg, known)["latents"]
    sae.run(batch(ts), cfg, 1)
    return sae.open_latents(ts[0].path)


@pytest.mark.parametrize(("wants", "n_bos"), [(True, 0), (False, 9)])
def test_a15_an_sae_of_texts_with_a_bos_takes_no_others(tmp_path, wants, n_bos):
    folder = saelens(tmp_path / "sae", {"prepend_bos": wants})
    known = read_by(tmp_path, [5] * 9, n_bos)
    with pytest.raises(ConfigError) as e:
        encode(tmp_path, folder, known)
    said, other = ("with a BOS", "without a BOS")[:: 1 if wants else -1]
    assert f"trained on texts {said}, and m reads them {other}" in str(e.value)
    assert f"write models.m.prepend_bos: {str(wants).lower()}" in str(e.value)
    assert "ignore_mismatch: [bos]" in str(e.value)
    assert encode(tmp_path, folder, known, overrides={"ignore_mismatch": ["bos"]}).shape == (9, F)


@pytest.mark.parametrize(
    ("wants", "n_bos"), [(True, 9), (False, 0), (None, 0), (True, None), (True, 4)]
)
def test_a15_texts_that_begin_as_it_was_trained_or_are_not_known_to(tmp_path, wants, n_bos):
    folder = saelens(tmp_path / "sae", {} if wants is None else {"prepend_bos": wants})
    assert encode(tmp_path, folder, read_by(tmp_path, [5] * 9, n_bos)).shape == (9, F)


def test_a15_before_version_6_a_bos_was_the_rule(tmp_path):
    assert describe(saelens(tmp_path / "old")).prepend_bos is True
    assert describe(saelens(tmp_path / "told", prepend_bos=False)).prepend_bos is False
    assert describe(saelens(tmp_path / "new", {"sae_lens_version": "6.0.0"})).prepend_bos is None


def test_a15_what_the_model_is_told_is_compared_while_planning(tmp_path):
    folder = saelens(tmp_path / "sae", {"prepend_bos": True})
    known = read_by(tmp_path, [5] * 9, 0)
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    cfg = edited(cfg, ["models", "m", "prepend_bos"], False)
    with pytest.raises(ConfigError, match=r"write models\.m\.prepend_bos: true"):
        targets(cfg, known)
    cfg = edited(cfg, ["models", "m", "prepend_bos"], True)
    assert targets(cfg, known)["latents"]


def test_a15_longer_texts_than_it_was_trained_on(tmp_path):
    folder = saelens(tmp_path / "sae", {"context_size": 128})
    known = read_by(tmp_path, [5, 128, 310, *[9] * 6], 0)
    said = r"row 2 has 310 tokens; saes\.s was trained on texts of 128 .*models\.m\.max_length: 128"
    with pytest.raises(ActprobeError, match=said):
        encode(tmp_path, folder, known)
    encode(tmp_path, folder, known, overrides={"ignore_mismatch": ["context"]})
    encode(tmp_path / "b", folder, read_by(tmp_path / "b", [5, 128, *[9] * 7], 0))


@pytest.mark.parametrize("write", [sparsify, dictionary("AutoEncoder")])
def test_a15_other_formats_say_the_length_too(tmp_path, write):
    folder = tmp_path / "run" / "layers.4"
    folder.parent.mkdir()
    write(folder, parameters())
    write_json(tmp_path / "run" / "config.json", {"model": "tiny", "ctx_len": 128})
    assert describe(folder).context_size == 128


# -- other keys that change what it may be applied to


@pytest.mark.parametrize(
    ("meta", "kind", "said"),
    [
        ({"hook_head_index": 3}, "head", "head 3 alone"),
        ({"hook_head_index": 0}, "head", "head 0 alone"),
        ({"seqpos_slice": [5, None]}, "positions", r"positions \[5, None\]"),
        ({"seqpos_slice": [None, 10]}, "positions", r"positions \[None, 10\]"),
        ({"hook_name": "blocks.4.attn.hook_z", "model_from_pretrained_kwargs":
          {"fold_value_biases": True}}, "processing", "loaded with fold_value_biases"),
    ],
)  # fmt: skip
def test_a15_keys_that_change_what_it_may_be_applied_to(tmp_path, meta, kind, said):
    site = "z.4" if "hook_name" in meta else "resid_post.4"
    found = refused(saelens(tmp_path / "sae", meta), site)
    assert set(found) == {kind}
    assert re.search(said, found[kind])


@pytest.mark.parametrize("meta", [
    {"hook_head_index": None}, {"seqpos_slice": [None]}, {"seqpos_slice": [1, None]},
    {"seqpos_slice": None}, {"model_from_pretrained_kwargs": {"fold_ln": False}},
    {"model_from_pretrained_kwargs": {"center_writing_weights": False}},
    {"exclude_special_tokens": True}, {"dataset_path": "x", "neuronpedia_id": None},
])  # fmt: skip
def test_a15_keys_that_change_nothing(tmp_path, meta):
    assert not refused(saelens(tmp_path / "sae", meta))


def test_a15_a_centred_residual_stream_is_centred_here(tmp_path):
    """center_writing_weights: TransformerLens takes the mean off all that is written to the stream,
    which transformers does not. Activations that are centred already stay as they are."""
    meta = {"hook_name": HOOK, "model_from_pretrained_kwargs": {"center_writing_weights": True}}
    folder, p, x = saelens(tmp_path / "sae", meta), parameters(), rows(40) + 3
    centred = x - x.mean(axis=1, keepdims=True)
    assert_same(codes(tmp_path / "a", folder, x), dense(p, centred, "standard"))
    assert_same(codes(tmp_path / "b", folder, centred), dense(p, centred, "standard"))
    inside = {**meta, "hook_name": "blocks.4.mlp.hook_post"}
    assert not describe(saelens(tmp_path / "post", inside)).center


def test_the_kinds_of_mismatch_can_be_passed_over_one_by_one(tmp_path):
    meta = {"hook_name": "blocks.9.hook_mlp_out", "model_name": "other"}
    folder = saelens(tmp_path / "sae", meta)
    known = activations(tmp_path, {"a": rows(3)})

    def plan(ignored):
        entry = {"source": str(folder), "overrides": {"ignore_mismatch": ignored}}
        return targets(config(tmp_path, {"s": entry}), known)["latents"]

    with pytest.raises(
        ConfigError, match=r"made for blocks\.9.*; .*model other.*: \[site, model\]\}"
    ):
        plan(False)
    with pytest.raises(
        ConfigError, match=r"saes\.s: it was made for the model other.*: \[model\]\}"
    ):
        plan(["site"])
    assert plan(["site", "model"]) and plan(True)
    assert {"site", "model", "width"} < set(KINDS)


@pytest.mark.parametrize(
    ("model_type", "settings", "bos"),
    [
        ("gpt2", {}, True),
        ("gpt2", {"prepend_bos": False}, False),
        ("gpt2", {"chat": {"user": "{text}"}}, None),  # its template decides
        ("gpt2", {"add_special_tokens": False}, None),  # the texts may bring their own
        ("gpt_neox", {}, None),  # its tokenizer decides
        ("llama", {"prepend_bos": True}, True),
    ],
)
def test_a15_what_is_known_of_the_bos_while_planning(tmp_path, model_type, settings, bos):
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", {"model_type": model_type, "hidden_size": D})
    folder = saelens(tmp_path / "sae", {"prepend_bos": bos is not True})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    cfg = edited(
        cfg, ["models", "m"], cfg["models"]["m"] | {"source": str(tmp_path / "model")} | settings
    )
    known = read_by(tmp_path, [5] * 9, 0)
    if bos is None:
        assert targets(cfg, known)["latents"]
    else:
        with pytest.raises(ConfigError, match="trained on texts with"):
            targets(cfg, known)
