"""SAEs of every format on disk end in the same codes."""

import json

import numpy as np
import pytest
from sae_tiny import (
    D,
    F,
    K,
    activations,
    codes,
    config,
    dense,
    encode,
    parameters,
    rows,
    save_saelens,
)
from safetensors.numpy import save_file
from test_sae_encode import assert_same

from actprobe import keys, store
from actprobe.errors import BadInput
from actprobe.sae.formats import describe
from actprobe.sae.weights import Matrix


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
           "hook_point_in": "blocks.4.hook_resid_post",
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

        trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": F, "k": K,
                   "layer": 4, "lm_name": "org/tiny"}  # fmt: skip
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset_average_activation_norm": {"in": 0}}, "cannot be used"),
        ({"dataset_average_activation_norm": {"in": float("nan")}}, "no usable scale"),
        ({"jump_relu_threshold": float("nan")}, "no usable scale"),
        ({"jump_relu_threshold": "high"}, "cannot be used"),
        ({"d_model": -1}, "cannot be used"),
        ([], "cannot be used"),
    ],
)
def test_a_config_whose_numbers_are_none_is_refused(tmp_path, change, said):
    """With a scale that is no number no latent would ever fire."""
    llama_scope(tmp_path, parameters("jumprelu"))
    path = tmp_path / "hyperparams.json"
    write_json(path, json.loads(path.read_text()) | change if change else [])
    with pytest.raises(BadInput, match=said):
        describe(tmp_path)


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


@pytest.mark.parametrize("name", ["llama_scope", "gemma_scope"])
def test_decoder_norms_are_those_on_the_scale_of_the_activations(tmp_path, name):
    """x is encoded as s·x and decoded as z·W_dec / s: the row norms are |W_dec| / s."""
    p = parameters()
    folder = tmp_path / "embedding"  # scales the input of a Gemma Scope SAE
    told = WRITERS[name](folder, p)
    scale = 0.5 if name == "llama_scope" else D**-0.5
    p["W_enc"] = p["W_enc"] * (scale if name == "gemma_scope" else 1)
    x = rows(40)
    norms = np.linalg.norm(p["W_dec"].astype(np.float64), axis=1) / scale
    settings = {"fold_decoder_norm": True, "overrides": {"ignore_mismatch": True}}
    assert_same(codes(tmp_path, folder, x, **settings), dense(p, x, **told) * norms)


@pytest.mark.parametrize("name", ["gemma_scope", "llama_scope"])
def test_variance_explained_of_each_dataset_from_one_pass_over_the_decoder(
    tmp_path, name, monkeypatch
):
    """Whichever way round W_dec is stored; the numbers do not depend on the company."""
    p = parameters()
    told = WRITERS[name](tmp_path / "sae", p)
    scale = 0.5 if name == "llama_scope" else 1
    xs = {n: rows(40, seed=ord(n)) for n in "abc"}
    cfg = config(tmp_path, {"s": {"source": str(tmp_path / "sae")}})
    passes, lines, some = [], Matrix.lines, Matrix.rows
    monkeypatch.setattr(Matrix, "lines", lambda m: passes.append("all") or lines(m))
    monkeypatch.setattr(Matrix, "rows", lambda m, j: passes.append(len(set(j))) or some(m, j))
    found = encode(cfg, activations(tmp_path, xs))
    chosen = np.unique(np.linspace(0, 39, 32).round().astype(int))
    active = np.zeros(F, bool)
    for n, x in xs.items():
        z = dense(p, x, **told)[chosen]
        active |= z.any(axis=0)
        x_hat = (z @ p["W_dec"] + p["b_dec"]) / scale
        spread = ((x[chosen] - x[chosen].mean(0)) ** 2).sum()
        expected = 1 - ((x[chosen] - x_hat) ** 2).sum() / spread
        share = store.read_header(found[n].path)["facts"]["variance_explained"]
        assert share == pytest.approx(expected, rel=1e-4)
    assert passes == (["all"] if name == "llama_scope" else [active.sum()])
    alone = encode(
        config(tmp_path / "alone", cfg["saes"]), activations(tmp_path / "alone", {"b": xs["b"]})
    )
    assert keys.file_sha256(alone["b"].path) == keys.file_sha256(found["b"].path)
