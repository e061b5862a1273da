"""Where SAEs come from: what is refused or damaged is named, and what identifies an SAE."""

import json

import numpy as np
import pytest
from configs import edited
from sae_tiny import (
    D,
    F,
    K,
    activations,
    codes,
    config,
    parameters,
    rows,
    save_saelens,
    targets,
)
from safetensors.numpy import save_file
from test_sae_formats import (
    dictionary,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    old_saelens,
    sparsify,
    write_json,
)

from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.models.hooks import HOOKS, hook_of
from actprobe.sae.checks import mismatches, site_of
from actprobe.sae.formats import Sae, describe
from actprobe.sae.weights import Weights

# -- refusals


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"architecture": "matching_pursuit"}, r"not supported: architecture 'matching_pursuit'"),
        ({"architecture": "temporal"}, r"not supported: architecture 'temporal'"),
        ({"architecture": "batchtopk", "k": 3}, r"depends on the batch; save it for inference"),
        ({"normalize_activations": "expected_average_only_in"}, r"has to be folded"),
        ({"normalize_activations": "covariance_whitening"}, r"has to be folded"),
        ({"normalize_activations": "other"}, r"normalize_activations 'other'"),
        ({"architecture": "topk"}, r"k is missing; expected"),
    ],
)
def test_unsupported_saes_are_refused_while_planning(tmp_path, cfg, message):
    folder = save_saelens(tmp_path / "sae", parameters(), **cfg)
    with pytest.raises(ConfigError, match=r"saes\.s\.source: .*" + message):
        targets(
            config(tmp_path, {"s": {"source": str(folder)}}), activations(tmp_path, {"a": rows(3)})
        )


def test_groupmax_and_unknown_dictionaries_are_refused(tmp_path):
    sparsify(tmp_path / "a", parameters())
    write_json(
        tmp_path / "a" / "cfg.json", {"d_in": D, "num_latents": F, "k": 1, "activation": "groupmax"}
    )
    known = activations(tmp_path, {"a": rows(3)})
    with pytest.raises(ConfigError, match="not supported: activation 'groupmax'"):
        targets(config(tmp_path, {"s": {"source": str(tmp_path / "a")}}), known)
    dictionary("Strange")(tmp_path / "b", parameters())
    with pytest.raises(
        ConfigError, match=r"not supported: trainer\.dict_class 'Strange'; known are"
    ):
        targets(config(tmp_path, {"s": {"source": str(tmp_path / "b")}}), known)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"act_fn": "topk"}, "act_fn 'topk'"),
        ({"norm_activation": "token-wise"}, "norm_activation 'token-wise'"),
        ({"use_glu_encoder": True}, "use_glu_encoder True"),
        ({"apply_decoder_bias_to_pre_encoder": True}, "apply_decoder_bias_to_pre_encoder True"),
    ],
)
def test_llama_scope_saes_that_encode_otherwise_are_refused(tmp_path, setting, message):
    llama_scope(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "hyperparams.json"
    cfg = json.loads(path.read_text()) | {
        "act_fn": "jumprelu", "norm_activation": "dataset-wise", "use_glu_encoder": False,
        "apply_decoder_bias_to_pre_encoder": False, "top_k": 50, "use_decoder_bias": True,
    }  # fmt: skip
    write_json(path, cfg)  # as the published ones say it
    assert describe(tmp_path / "sae").architecture == "jumprelu"
    write_json(path, cfg | setting)
    with pytest.raises(BadInput, match=rf"hyperparams\.json: not supported: {message}"):
        describe(tmp_path / "sae")


def test_old_saelens_saes_of_another_activation_are_refused(tmp_path):
    old_saelens(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "cfg.json"
    cfg = json.loads(path.read_text())
    write_json(path, cfg | {"activation_fn_str": "relu"})
    assert describe(tmp_path / "sae").architecture == "standard"
    write_json(path, cfg | {"activation_fn_str": "tanh-relu"})
    with pytest.raises(
        BadInput, match=r"not supported: activation_fn_str 'tanh-relu'; known are relu"
    ):
        describe(tmp_path / "sae")
    write_json(path, cfg | {"activation_fn_kwargs": {}})
    with pytest.raises(BadInput, match=r"k is missing; expected a whole number"):
        describe(tmp_path / "sae")


def test_an_unfolded_scaling_factor_is_refused(tmp_path):
    p = parameters() | {"scaling_factor": np.ones(F, np.float32)}
    x = rows(10)
    assert codes(tmp_path, save_saelens(tmp_path / "ones", p), x).any()
    p["scaling_factor"][3] = 2
    with pytest.raises(ActprobeError, match="finetuning scaling_factor other than one"):
        codes(tmp_path, save_saelens(tmp_path / "two", p), x)


def test_folding_norms_into_a_plain_top_k_is_refused(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters(), architecture="topk", k=K)
    with pytest.raises(ActprobeError, match="would change the top k"):
        codes(tmp_path, folder, rows(5), fold_decoder_norm=True)


def test_no_sae_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    known = activations(tmp_path, {"a": rows(3)})
    with pytest.raises(ConfigError, match=r"no SAE found: it holds notes\.txt; expected one of"):
        targets(config(tmp_path, {"s": {"source": str(tmp_path / "empty")}}), known)
    with pytest.raises(ConfigError, match="there is no such folder or file"):
        targets(config(tmp_path, {"s": {"source": str(tmp_path / "nowhere")}}), known)


# -- an SAE of another place


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"hook_name": "blocks.5.hook_resid_post"}, r"made for blocks\.5\.hook_resid_post"),
        ({"model_name": "org/other"}, r"made for the model org/other, not org/tiny"),
    ],
)
def test_mismatches_are_refused_unless_overridden(tmp_path, cfg, message):
    meta = {"sae_lens_version": "6.0.0", "model_name": "tiny"} | cfg
    folder = save_saelens(tmp_path / "sae", parameters(), metadata=meta)
    known = activations(tmp_path, {"a": rows(3)})
    with pytest.raises(ConfigError, match=message):
        targets(config(tmp_path, {"s": {"source": str(folder)}}), known)
    ignore = {"source": str(folder), "overrides": {"ignore_mismatch": True}}
    assert targets(config(tmp_path, {"s": ignore}), known)["latents"]


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.4.hook_resid_post", "resid_post.4"),
        ("blocks.4.attn.hook_z", "z.4"),
        ("blocks.4.hook_z", "z.4"),
        ("blocks.4.ln2.hook_normalized", "mlp_in.4"),
        ("blocks.4.mlp.hook_in", "mlp_in.4"),
        ("blocks.4.mlp.hook_post", "mlp_post.4"),
        ("hook_embed", "embed"),
        ("layers.4", "resid_post.4"),
        ("model.layers.4.mlp", "mlp_out.4"),
        ("layers.4.mlp.input", "mlp_in.4"),
        ("transformer.h.4", "resid_post.4"),
        ("model.layers.4.self_attn", "attn_out.4"),
        ("gpt_neox.layers.4.attention", "attn_out.4"),
        ("h.4.attn", "attn_out.4"),
        ("embed_tokens", "embed"),
        ("gpt_neox.embed_in", "embed"),
        ("blocks.4.ln1.hook_normalized", None),
        ("somewhere.4", None),
    ],
)
def test_hook_names_in_the_words_of_sites(hook, site):
    assert site_of(hook) == site


@pytest.mark.parametrize("site", ["embed", *(f"{kind}.4" for kind in HOOKS)])
def test_hook_names_of_sites_come_back(site):
    assert site_of(hook_of(site)) == site


def test_a_hook_that_names_no_known_site_is_refused():
    """It may belong to any layer; a dump may call a site the same, and trained SAEs go by it."""

    def found(hook, site):
        return mismatches(Sae("w", "topk", D, F, hook=hook), site, ["m"], None)

    unknown = "blocks.20.ln1.hook_normalized"
    assert found(unknown, "resid_post.4") == {
        "site": f"it was made for {unknown}, which names no known site"
    }
    assert not found(unknown, unknown) and not found("blocks.4.hook_own", "own.4")
    assert not found(None, "resid_post.4")


@pytest.mark.parametrize("hook", ["blocks.4.ln2.hook_normalized", "blocks.4.hook_mlp_in"])
def test_a_transcoder_that_reads_before_the_gain_takes_no_extracted_mlp_in(hook):
    """A dump may call so what the transcoder reads; our own mlp_in is what the MLP takes."""
    sae = Sae("w", "jumprelu", D, F, transcoder=True, hook=hook)
    assert not mismatches(sae, "mlp_in.4", ["m"], None)
    assert mismatches(sae, "mlp_in.4", ["m"], None, extracted=True) == {
        "site": f"it was made for {hook}, which is read before the norm's gain, and mlp_in.4 after it"
    }
    taken = Sae("w", "topk", D, F, transcoder=True, hook="layers.4.mlp.input")
    assert not mismatches(taken, "mlp_in.4", ["m"], None, extracted=True)


@pytest.mark.parametrize(
    ("module", "site"),
    [
        ("resid_post_layer_7", "resid_post.7"),
        ("resid_pre_layer_7", "resid_pre.7"),
        ("mlp_out_layer_7", "mlp_out.7"),
        ("attn", "attn_out.7"),
        ("something", None),
    ],
)
def test_the_module_of_a_dictionary(tmp_path, module, site):
    dictionary("AutoEncoder")(tmp_path, parameters())
    cfg = {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": F, "lm_name": "tiny"}
    write_json(tmp_path / "config.json", {"trainer": cfg | {"layer": 7, "submodule_name": module}})
    found = describe(tmp_path)
    assert site_of(found.hook) == site
    assert mismatches(found, "resid_post.4", ["tiny"], D)
    write_json(tmp_path / "config.json", {"trainer": cfg | {"layer": None}})
    assert describe(tmp_path).hook is None


def test_a_sparsify_folder_named_by_its_user(tmp_path):
    sparsify(tmp_path / "my.sae", parameters())
    assert describe(tmp_path / "my.sae").hook is None


def test_what_the_path_of_a_gemma_scope_sae_says(tmp_path):
    def at(folder):
        folder = tmp_path / folder
        folder.parent.mkdir(parents=True)
        gemma_scope(folder, parameters())
        found = describe(folder)
        return found.model, found.hook, found.input_scale == 1, found.transcoder

    study = "layer_3_embedding_study"  # a folder of the user's says nothing
    assert at(f"{study}/gemma-scope-9b-pt-res/layer_20/width_16k/l0_1") == (
        "gemma-2-9b", "blocks.20.hook_resid_post", True, False,
    )  # fmt: skip
    assert at("gemma-scope-2b-pt-transcoders/layer_5/width_16k/l0_1") == (
        "gemma-2-2b", "blocks.5.ln2.hook_normalized", True, True,
    )  # fmt: skip
    assert at("gemma-scope-2b-pt-res/embedding/width_4k/l0_1") == (
        "gemma-2-2b", "hook_embed", False, False,
    )  # fmt: skip
    assert at("layer_20_exp/embedding/width_4k/l0_1") == (None, "hook_embed", False, False)


def test_what_the_config_of_a_gemma_scope_2_sae_says(tmp_path):
    for kind, hook in {"resid_post": "hook_resid_post", "transcoder": "hook_mlp_in"}.items():
        folder = tmp_path / kind / "layer_12_width_16k_l0_small"
        gemma_scope_2(folder, parameters())
        write_json(
            folder / "config.json", {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt"}
        )
        found = describe(folder)
        assert (found.model, found.hook) == ("gemma-3-1b-pt", f"blocks.12.{hook}")
        assert found.transcoder == (kind == "transcoder")


def test_the_input_of_a_sparsify_transcoder(tmp_path):
    """It reads the input of the module that it is named after."""
    folder = tmp_path / "layers.4.mlp"
    sparsify(folder, parameters())
    write_json(folder / "cfg.json", {"d_in": D, "num_latents": F, "k": K, "transcode": True})
    found = describe(folder)
    assert found.transcoder and not found.subtract_b_dec
    assert site_of(found.hook) == "mlp_in.4"


def test_models_by_the_names_of_transformer_lens(tmp_path):
    meta = {"sae_lens_version": "6.0.0", "model_name": "gpt2-small"}
    folder = save_saelens(tmp_path / "sae", parameters(), metadata=meta)
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    cfg = edited(cfg, ["models", "m", "source"], "openai-community/gpt2")
    assert targets(cfg, activations(tmp_path, {"a": rows(3)}))["latents"]


def test_the_stream_after_a_layer_is_the_one_before_the_next(tmp_path):
    meta = {"sae_lens_version": "6.0.0", "hook_name": "blocks.5.hook_resid_pre"}
    folder = save_saelens(tmp_path / "sae", parameters(), metadata=meta)
    known = activations(tmp_path, {"a": rows(3)})
    assert targets(config(tmp_path, {"s": {"source": str(folder)}}), known)["latents"]


def test_a_wrong_width_is_found_while_planning_when_the_model_says_its_own(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    known = activations(tmp_path, {"a": rows(3)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    cfg = edited(cfg, ["models", "m", "d_model"], 32)
    with pytest.raises(ConfigError, match="it encodes width 16, the model's d_model is 32"):
        targets(cfg, known)


def test_a_wrong_width_is_found_in_the_activations(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    with pytest.raises(ActprobeError, match=r"activations of width 12; s encodes width 16"):
        codes(tmp_path, folder, rows(5, d=12))


# -- damaged files


def test_a_file_cut_short(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ActprobeError, match=r"sae_weights\.safetensors: cut short: .* expected"):
        codes(tmp_path, folder, rows(5))


def test_an_archive_cut_short(tmp_path):
    gemma_scope(tmp_path / "sae", parameters())
    file = tmp_path / "sae" / "params.npz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"params\.npz: not a NumPy archive, or cut short"):
        codes(tmp_path, tmp_path / "sae", rows(5))


def test_a_pickle_cut_short(tmp_path):
    dictionary("AutoEncoder")(tmp_path / "sae", parameters())
    file = tmp_path / "sae" / "ae.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ActprobeError, match=r"ae\.pt: not a zip file, or cut short.*fetch it"):
        codes(tmp_path, tmp_path / "sae", rows(5))


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "b_dec", "W_dec"])
def test_a_missing_tensor(tmp_path, name):
    p = parameters()
    del p[name]
    folder = save_saelens(tmp_path / "sae", parameters())
    save_file(p, folder / "sae_weights.safetensors")
    with pytest.raises(ActprobeError, match=f"no tensor {name}; it holds"):
        codes(tmp_path, folder, rows(5))


@pytest.mark.parametrize("name", ["b_enc", "W_dec"])
def test_a_wrong_shape(tmp_path, name):
    p = parameters()
    p[name] = p[name][:-1].copy()
    folder = save_saelens(tmp_path / "sae", p)
    with pytest.raises(ActprobeError, match=rf"{name} has shape \[99.*expected \[100"):
        codes(tmp_path, folder, rows(5))


def test_a_wrong_dtype(tmp_path):
    p = parameters()
    p["W_enc"] = p["W_enc"].astype(np.int32)
    folder = save_saelens(tmp_path / "sae", p)
    with pytest.raises(ActprobeError, match="W_enc is I32; expected F64, F32, F16, BF16"):
        codes(tmp_path, folder, rows(5))


def test_encoding_reads_the_decoder_only_for_its_norms(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    with Weights(describe(folder)) as w:
        w.encoder.block(0, F)
        w.vector("b_enc")
        assert sum(w.bytes_read().values()) == 4 * (D * F + F)
        w.decoder_norms()
        assert sum(w.bytes_read().values()) == 4 * (2 * D * F + F)


def test_what_a_weight_file_holds_enters_the_key(tmp_path):
    known = activations(tmp_path, {"a": rows(3)})
    found = []
    for seed in (0, 1):
        folder = save_saelens(tmp_path / f"sae{seed}", parameters(seed=seed))
        found += targets(config(tmp_path, {"s": {"source": str(folder)}}), known)["latents"]
    assert found[0].key != found[1].key
    named = {"source": str(folder), "identity": "revision", "revision": "v1"}
    [t] = targets(config(tmp_path, {"s": named}), known)["latents"]
    assert t.spec.sae.revision == "v1"


def test_what_only_the_path_of_an_sae_says_enters_the_key(tmp_path):
    """The same weights in folders that say what their codes are; other keys stay as they were."""
    known, found = activations(tmp_path, {"a": rows(3)}), []
    for folder in ("plain/a/b", "other/layer_4/b", "x/embedding/width_4k",
                   "gemma-scope-2b-pt-transcoders/layer_5/width_16k"):  # fmt: skip
        path = tmp_path / folder
        path.parent.mkdir(parents=True)
        gemma_scope(path, parameters())
        entry = {"source": str(path), "overrides": {"ignore_mismatch": True}}
        [t] = targets(config(tmp_path, {"s": entry}), known)["latents"]
        found.append(t)
    plain, layer, embedding, transcoder = found
    assert plain.key == layer.key and set(plain.record["sae"]) == {"files", "format"}
    assert len({t.key for t in found}) == 3
    assert embedding.spec.sae.named == {"input_scale": D**-0.5}
    assert transcoder.spec.sae.named["transcoder"] is True
