"""SAEs of every format on disk end in the same codes; what is not supported is refused by name."""

import json

import numpy as np
import pytest
from sae_tiny import (
    D,
    F,
    K,
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
from safetensors.numpy import save_file
from test_sae_encode import assert_same

from actprobe import sae
from actprobe.errors import ActprobeError, ConfigError
from actprobe.sae import sources
from actprobe.sae.formats import describe
from actprobe.sae.weights import Weights


def fresh(p):
    return {k: np.ascontiguousarray(v) for k, v in p.items()}


def transposed(p, **names):
    """Parameters under other names, matrices with their axes exchanged."""
    return fresh({new: p[old].T if p[old].ndim == 2 else p[old] for old, new in names.items()})


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# -- writers: one per format, each (folder, parameters) -> what `dense` has to be told


def old_saelens(folder, p):
    save_saelens(folder, p)
    cfg = {"d_in": D, "d_sae": F, "hook_point": "blocks.4.hook_resid_post", "model_name": "tiny",
           "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K},
           "normalize_activations": False}  # fmt: skip
    write_json(folder / "cfg.json", cfg)
    return {"architecture": "topk", "b_dec": True}


def batchtopk(folder, p):
    """As SAELens saves it for inference: a JumpReLU SAE with one threshold."""
    p["threshold"] = np.full(F, 0.8, np.float32)
    save_saelens(folder, p, architecture="jumprelu", apply_b_dec_to_input=True)
    return {"architecture": "jumprelu", "b_dec": True}


def gemma_scope(folder, p):
    folder.mkdir()
    p["threshold"] = np.full(F, 0.3, np.float32)
    np.savez(folder / "params.npz", **{k.replace("W_", "w_"): v for k, v in p.items()})
    return {"architecture": "jumprelu", "b_dec": False}


def gemma_scope_2(folder, p):
    write_json(folder / "config.json", {"architecture": "jump_relu", "model_name": "tiny"})
    p["threshold"] = np.full(F, 0.3, np.float32)
    lower = {k.replace("W_", "w_"): v for k, v in p.items()}
    save_file(fresh(lower), folder / "params.safetensors")
    return {"architecture": "jumprelu", "b_dec": False}


def sparsify(folder, p):
    write_json(
        folder / "cfg.json", {"d_in": D, "expansion_factor": F / D, "num_latents": F, "k": K}
    )
    weights = {"encoder.weight": p["W_enc"].T, "encoder.bias": p["b_enc"]}
    save_file(fresh(weights | {k: p[k] for k in ("W_dec", "b_dec")}), folder / "sae.safetensors")
    return {"architecture": "topk", "b_dec": True}


def llama_scope(folder, p):
    cfg = {"d_model": D, "d_sae": F, "jump_relu_threshold": 0.4, "model_name": "tiny",
           "dataset_average_activation_norm": {"in": 2 * np.sqrt(D)}}  # fmt: skip
    write_json(folder / "hyperparams.json", cfg)
    (folder / "checkpoints").mkdir()
    names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias",
             "W_dec": "decoder.weight", "b_dec": "decoder.bias"}  # fmt: skip
    save_file(transposed(p, **names), folder / "checkpoints" / "final.safetensors")
    p["W_enc"] = p["W_enc"] / 2  # s = sqrt(d) / norm = 0.5, folded
    p["threshold"] = np.full(F, 0.2)
    return {"architecture": "jumprelu", "b_dec": False}


def dictionary(dict_class):
    def write(folder, p):
        import torch

        trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": F, "k": K}
        write_json(folder / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})
        names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
        state = transposed(p, **names, b_dec="bias" if dict_class == "AutoEncoder" else "b_dec")
        if "BatchTopK" in dict_class:
            state["threshold"] = p["threshold"] = np.array(0.8, np.float32)
        elif dict_class == "AutoEncoderTopK":
            state["threshold"] = np.array(99.0, np.float32)  # stored, and of no meaning
        torch.save({k: torch.from_numpy(v) for k, v in state.items()}, folder / "ae.pt")
        kind = {"AutoEncoder": "standard", "AutoEncoderTopK": "topk"}.get(dict_class, "jumprelu")
        return {"architecture": kind, "b_dec": True}

    return write


WRITERS = {
    "saelens_5": old_saelens,
    "batchtopk": batchtopk,
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "sparsify": sparsify,
    "llama_scope": llama_scope,
    "dictionary_learning": dictionary("AutoEncoder"),
    "dictionary_learning_topk": dictionary("AutoEncoderTopK"),
    "dictionary_learning_batchtopk": dictionary("BatchTopKSAE"),
    "dictionary_learning_matryoshka": dictionary("MatryoshkaBatchTopKSAE"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_formats(tmp_path, name):
    p = parameters()
    told = WRITERS[name](tmp_path / "sae", p)
    x = rows(40)
    found = codes(tmp_path, tmp_path / "sae", x)
    assert_same(found, dense(p, x, **told))
    assert found.any()


def test_gated_dictionary(tmp_path):
    import torch

    p = parameters("gated")
    trainer = {"dict_class": "GatedAutoEncoder", "activation_dim": D, "dict_size": F}
    write_json(tmp_path / "sae" / "config.json", {"trainer": trainer})
    state = transposed(p, W_enc="encoder.weight", W_dec="decoder.weight", b_dec="decoder_bias",
                       b_gate="gate_bias", b_mag="mag_bias", r_mag="r_mag")  # fmt: skip
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "sae" / "ae.pt")
    x = rows(40)
    assert_same(codes(tmp_path, tmp_path / "sae", x), dense(p, x, "gated"))


def test_jumprelu_dictionary_subtracts_nothing(tmp_path):
    import torch

    p = parameters("jumprelu")
    trainer = {"dict_class": "JumpReluAutoEncoder", "activation_dim": D, "dict_size": F}
    write_json(tmp_path / "sae" / "config.json", {"trainer": trainer})
    torch.save({k: torch.from_numpy(v) for k, v in p.items()}, tmp_path / "sae" / "ae.pt")
    x = rows(40)
    assert_same(codes(tmp_path, tmp_path / "sae", x), dense(p, x, "jumprelu", b_dec=False))


def test_signed_sparsify(tmp_path):
    p = parameters()
    sparsify(tmp_path / "sae", p)
    cfg = {"d_in": D, "num_latents": F, "k": K, "signed": True}
    write_json(tmp_path / "sae" / "cfg.json", cfg)
    x = rows(40)
    found = codes(tmp_path, tmp_path / "sae", x)
    assert_same(found, dense(p, x, "abstopk"))
    assert (found < 0).any()


def test_embedding_saes_of_gemma_scope_scale_their_input(tmp_path):
    p = parameters()
    folder = tmp_path / "embedding" / "width_4k"
    folder.parent.mkdir()
    told = gemma_scope(folder, p)
    x = rows(40)
    p["W_enc"] = p["W_enc"] / np.sqrt(D)
    assert_same(codes(tmp_path, folder, x, overrides={"ignore_mismatch": True}),
                dense(p, x, **told))  # fmt: skip


def test_compressed_archives_are_converted_once(tmp_path):
    p = parameters()
    told = gemma_scope(tmp_path / "sae", p)
    file = tmp_path / "sae" / "params.npz"
    with np.load(file) as z:
        np.savez_compressed(file, **dict(z))
    x = rows(40)
    assert_same(codes(tmp_path, tmp_path / "sae", x), dense(p, x, **told))
    assert len(list((tmp_path / "saes").glob("s.*.h5"))) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened(tmp_path, dtype):
    import torch
    from safetensors.torch import save_file as save_torch

    p = parameters()
    save_saelens(tmp_path / "sae", p)
    half = {k: torch.from_numpy(v).to(getattr(torch, dtype)) for k, v in p.items()}
    save_torch(half, tmp_path / "sae" / "sae_weights.safetensors")
    x = rows(40)
    wide = {k: v.float().numpy() for k, v in half.items()}
    assert_same(codes(tmp_path, tmp_path / "sae", x), dense(wide, x, "standard"))


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
        ({"architecture": "topk"}, r"no usable 'k'"),
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
    with pytest.raises(ConfigError, match="not supported: dict_class 'Strange'"):
        targets(config(tmp_path, {"s": {"source": str(tmp_path / "b")}}), known)


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


def test_the_stream_after_a_layer_is_the_one_before_the_next(tmp_path):
    meta = {"sae_lens_version": "6.0.0", "hook_name": "blocks.5.hook_resid_pre"}
    folder = save_saelens(tmp_path / "sae", parameters(), metadata=meta)
    known = activations(tmp_path, {"a": rows(3)})
    assert targets(config(tmp_path, {"s": {"source": str(folder)}}), known)["latents"]


def test_a_wrong_width_is_found_while_planning_when_the_model_says_its_own(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    known = activations(tmp_path, {"a": rows(3)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}})
    cfg["models"]["m"]["d_model"] = 32
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
    with pytest.raises(ActprobeError, match=r"ae\.pt: not a PyTorch state dict of tensors, or cut"):
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
    assert t.spec["sae"]["revision"] == "v1"


def test_hub_saes_are_pinned(tmp_path):
    known = activations(tmp_path, {"a": rows(3)})
    with pytest.raises(ConfigError, match=r"saes\.s\.revision: pin hub:org/repo to its full"):
        targets(
            config(tmp_path, {"s": {"source": "hub:org/repo/folder", "revision": "main"}}), known
        )


def test_hub_saes_are_fetched_by_the_job_and_compared_with_the_site_there(tmp_path, monkeypatch):
    """Planned offline, before anything is in the hub cache."""
    p = parameters()
    entry = {"source": "hub:org/repo/sub", "revision": "a" * 40, "format": "saelens"}
    cfg, known = config(tmp_path, {"s": entry}), activations(tmp_path, {"a": rows(3)})
    [t] = targets(cfg, known)["latents"]
    assert t.spec["sae"] == {
        "hub": "org/repo", "folder": "sub", "revision": "a" * 40, "format": "saelens",
    }  # fmt: skip
    with pytest.raises(
        ActprobeError, match="hub:org/repo at aaaaaaaa is not in the local hub cache"
    ):
        sae.run(batch([t]), cfg, 1)

    cached = save_saelens(tmp_path / "hub" / "sub", p)
    monkeypatch.setattr(sources, "fetch", lambda *_, **__: cached)
    sae.run(batch([t]), cfg, 1)
    assert_same(sae.open_latents(t.path).to_scipy().toarray(), dense(p, rows(3), "standard"))

    other = {"sae_lens_version": "6.1", "model_name": "tiny", "hook_name": "blocks.7.hook_mlp_out"}
    save_saelens(cached, p, metadata=other)
    with pytest.raises(ConfigError, match=r"saes\.s: it was made for blocks\.7\.hook_mlp_out"):
        sae.run(batch([t]), cfg, 1)
