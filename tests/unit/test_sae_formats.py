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

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import store
from actprobe.sae.formats import describe
from actprobe.sae.weights import Matrix

HOOK = "blocks.4.hook_resid_post"


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


def lm_saes(choice=False, form="W_E", act_fn="jumprelu"):
    """Language-Model-SAEs 2, and the first form of its tensors, which Llama-Scope-R1-Distill has."""

    def write(folder, p):
        cfg = {"sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": act_fn,
               "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": choice, "top_k": K,
               "hook_point_in": HOOK, "hook_point_out": HOOK, "dtype": "torch.bfloat16"}  # fmt: skip
        write_json(folder / "config.json", cfg)
        threshold = np.full(F, 0.3, np.float32)
        if form == "W_E":
            state = {"W_E": p["W_enc"], "b_E": p["b_enc"], "W_D": p["W_dec"], "b_D": p["b_dec"],
                     "activation_function.log_jumprelu_threshold": np.log(threshold)}  # fmt: skip
        else:
            state = {"encoder.weight": p["W_enc"].T, "encoder.bias": p["b_enc"],
                     "decoder.weight": p["W_dec"].T, "decoder.bias": p["b_dec"],
                     "log_jumprelu_threshold": np.log(threshold)}  # fmt: skip
        norm = np.array(2 * np.sqrt(D), np.float32)  # the input is halved
        state[f"dataset_average_activation_norm.{HOOK}"] = norm
        save_file(fresh(state), folder / "sae_weights.safetensors")
        p["W_enc"] = p["W_enc"] / 2
        p["threshold"] = threshold / (np.linalg.norm(p["W_dec"], axis=1) if choice else 1)
        return {"architecture": {"relu": "standard"}.get(act_fn, act_fn), "b_dec": False}

    return write


def save_torch(state, path):
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({k: torch.from_numpy(v) for k, v in fresh(state).items()}, path)


def goodfire(folder, p):
    names = {"W_enc": "encoder_linear.weight", "b_enc": "encoder_linear.bias",
             "W_dec": "decoder_linear.weight", "b_dec": "decoder_linear.bias"}  # fmt: skip
    save_torch(transposed(p, **names), folder / "tiny-SAE-l4.pth")
    return {"architecture": "standard", "b_dec": False}


def qresearch(folder, p):
    names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight",
             "b_dec": "decoder.bias"}  # fmt: skip
    save_torch(transposed(p, **names), folder / "tiny-SAE-l4.pt")
    return {"architecture": "standard", "b_dec": False}


def qwen_scope(folder, p):
    """Its width is a multiple of 1,024; names of both matrices mean the other way round."""
    p |= parameters(f=1024)
    path = folder / "SAE-Res-tiny-W1K-L0_8" / "layer4.sae.pt"
    save_torch(transposed(p, **{n: n for n in ("W_enc", "W_dec", "b_enc", "b_dec")}), path)
    return {"architecture": "topk", "b_dec": False}


def saev(kind, schema=5):
    def write(folder, p):
        import torch

        activation = {"cls": kind, "params": {} if kind == "Relu" else {"top_k": K}}
        cfg = {"d_model": D, "d_sae": F, "activation": activation}
        if kind == "TopK":
            p["b_enc"] += 3  # enough latents are positive: it keeps negative ones otherwise
        state = {n: p[n] for n in ("W_enc", "W_dec", "b_enc", "b_dec")}
        if kind == "BatchTopK":
            state["activation.threshold"] = p["threshold"] = np.array(0.8, np.float32)
        folder.mkdir()
        with open(folder / "sae.pt", "wb") as f:
            f.write(json.dumps({"schema": schema, "cfg": cfg, "lib": "0.1"}).encode() + b"\n")
            torch.save({k: torch.from_numpy(v) for k, v in fresh(state).items()}, f)
        return {"architecture": {"Relu": "standard", "TopK": "topk"}.get(kind, "jumprelu"),
                "b_dec": False}  # fmt: skip

    return write


def transcoder(activation="relu", cross_layer=False):
    """circuit-tracer, as mwhanna and mntss publish theirs."""

    def write(folder, p):
        folder.mkdir()
        if activation == "topk":
            p["b_enc"] += 3
        state = {"W_enc": p["W_enc"].T, **{n: p[n] for n in ("W_dec", "b_enc", "b_dec")}}
        if activation == "jump_relu":
            name = "threshold" if cross_layer else "activation_function.threshold"
            state[name] = p["threshold"] = np.full(F, 0.3, np.float32)
        cfg = {"model_name": "org/tiny", "feature_input_hook": "mlp.hook_in",
               "feature_output_hook": "hook_mlp_out"}  # fmt: skip
        if activation == "topk":
            cfg |= {"activation": "topk", "k": K}
        (folder / "config.yaml").write_text(json.dumps(cfg))
        wandb = {"d_model": {"value": D}, "d_feature": {"value": F}, "batch_size": {"value": 64}}
        (folder / "wandb-config.yaml").write_text(json.dumps(wandb))
        if cross_layer:
            later = np.stack([state.pop("W_dec")] * 3, axis=1)  # it writes to three layers
            save_file(fresh({"W_dec_4": later}), folder / "W_dec_4.safetensors")
            save_file(
                fresh({f"{k}_4": v for k, v in state.items()}), folder / "W_enc_4.safetensors"
            )
        else:
            save_file(fresh(state), folder / "layer_4.safetensors")
        return {"architecture": {"relu": "standard", "topk": "topk"}.get(activation, "jumprelu"),
                "b_dec": False}  # fmt: skip

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
    "lm_saes": lm_saes(),
    "lm_saes_relu": lm_saes(act_fn="relu"),
    "lm_saes_topk": lm_saes(act_fn="topk"),
    "lm_saes_chosen_by_norm": lm_saes(choice=True),
    "llama_scope_r1_distill": lm_saes(form="encoder.weight"),
    "goodfire": goodfire,
    "qresearch": qresearch,
    "qwen_scope": qwen_scope,
    "saev": saev("Relu"),
    "saev_topk": saev("TopK"),
    "saev_batchtopk": saev("BatchTopK", schema=2),
    "circuit_tracer": transcoder(),
    "circuit_tracer_jumprelu": transcoder("jump_relu"),
    "circuit_tracer_topk": transcoder("topk"),
    "circuit_tracer_clt": transcoder(cross_layer=True),
    "circuit_tracer_clt_jumprelu": transcoder("jump_relu", cross_layer=True),
}
IN_FOLDERS = {"qwen_scope": "SAE-Res-tiny-W1K-L0_8"}  # where the SAE lies below its folder
ELSEWHERE = ("qwen_scope", "goodfire", "circuit_tracer")  # made for another site or model


@pytest.mark.parametrize("name", WRITERS)
def test_formats(tmp_path, name):
    p = parameters()
    told = WRITERS[name](tmp_path / "sae", p)
    x = rows(40)
    folder = tmp_path / "sae" / IN_FOLDERS.get(name, "")
    entry = {
        "overrides": {"ignore_mismatch": ["site", "model"] if name.startswith(ELSEWHERE) else []}
    }
    found = codes(tmp_path, folder, x, **entry)
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
        ({"dataset_average_activation_norm": {"in": 0}}, r"norm\.in is 0; expected .* above 0"),
        ({"dataset_average_activation_norm": {"in": float("nan")}}, r"norm\.in is nan; expected"),
        ({"jump_relu_threshold": float("nan")}, "jump_relu_threshold is nan; expected a finite"),
        ({"jump_relu_threshold": "high"}, "jump_relu_threshold is 'high'; expected a finite"),
        ({"d_model": -1}, "d_model is -1; expected a whole number of at least 1"),
        ([], r"it holds \[\]; expected a mapping"),
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
    passes, lines, block = [], Matrix.lines, Matrix.block
    monkeypatch.setattr(Matrix, "lines", lambda m, *ab: passes.append(ab) or lines(m, *ab))
    monkeypatch.setattr(Matrix, "block", lambda m, *ab: passes.append(ab) or block(m, *ab))
    found = encode(cfg, activations(tmp_path, xs))
    active = np.zeros(F, bool)
    for n, x in xs.items():
        z = dense(p, x, **told)
        active |= z.any(axis=0)
        x_hat = (z @ p["W_dec"] + p["b_dec"]) / scale
        spread = ((x - x.mean(0)) ** 2).sum()
        expected = 1 - ((x - x_hat) ** 2).sum() / spread
        share = store.read_header(found[n].path)["facts"]["variance_explained"]
        assert share == pytest.approx(expected, rel=1e-4)
    fire = np.flatnonzero(active)
    assert passes == [(0, F), (0, D) if name == "llama_scope" else (fire[0], fire[-1] + 1)]
    alone = encode(
        config(tmp_path / "alone", cfg["saes"]), activations(tmp_path / "alone", {"b": xs["b"]})
    )
    assert keys.file_sha256(alone["b"].path) == keys.file_sha256(found["b"].path)


@pytest.mark.parametrize(
    "write", [saev("TopK"), transcoder("topk")], ids=["saev", "circuit_tracer"]
)
def test_a_top_k_that_would_keep_negative_latents_is_refused(tmp_path, write):
    """These tools apply no ReLU: with fewer than k positive latents, negative ones are kept."""
    p = parameters()
    p["b_enc"] -= 5
    write(tmp_path / "sae", p)
    with pytest.raises(ActprobeError, match=r"row 0 has \d positive latents of s, whose k is 8"):
        codes(tmp_path, tmp_path / "sae", rows(9), overrides={"ignore_mismatch": True})


def test_latents_chosen_by_norm_keep_their_value_unless_norms_are_folded(tmp_path):
    """lm_saes with sparsity_include_decoder_norm: the norm decides, the latent is not multiplied."""
    for act_fn in ("topk", "jumprelu"):
        p = parameters()
        p["W_dec"] *= np.exp(np.random.default_rng(3).standard_normal((F, 1))).astype(np.float32)
        folder = tmp_path / act_fn
        lm_saes(choice=True, act_fn=act_fn)(folder, p)
        norms = np.linalg.norm(p["W_dec"].astype(np.float64), axis=1)
        x = rows(40)
        pre = x.astype(np.float64) @ p["W_enc"] + p["b_enc"]
        size = np.maximum(pre, 0) * norms
        kth = np.sort(size, axis=1)[:, -K, None]
        kept = size >= kth if act_fn == "topk" else size > 0.3
        expected = kept * np.maximum(pre, 0)
        assert_same(codes(tmp_path / "plain", folder, x), expected)
        folded = codes(tmp_path / "folded", folder, x, fold_decoder_norm=True)
        assert_same(folded, expected * norms / 0.5)  # of the decoder that speaks to the activations


def test_a_folder_of_several_layers_wants_one_to_be_named(tmp_path):
    transcoder()(tmp_path / "sae", parameters())
    file = tmp_path / "sae" / "layer_4.safetensors"
    (tmp_path / "sae" / "layer_5.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(
        BadInput, match=r"holds 2 SAEs; name the file of one, .*layer_4\.safetensors"
    ):
        describe(tmp_path / "sae")
    found = describe(file)
    assert (found.layer, found.hook, found.model) == (4, "blocks.4.mlp.hook_in", "org/tiny")
    assert describe(tmp_path / "sae" / "layer_5.safetensors").layer == 5


def test_what_the_names_of_qwen_scope_say(tmp_path):
    qwen_scope(tmp_path, parameters())
    folder = tmp_path / IN_FOLDERS["qwen_scope"]
    found = describe(folder)
    assert (found.k, found.hook, found.model) == (8, HOOK, "Qwen/tiny")
    with pytest.raises(BadInput, match="put the file into a folder of that name"):
        describe(folder.rename(tmp_path / "renamed"))
    wider = (tmp_path / "renamed").rename(tmp_path / "SAE-Res-tiny-W2K-L0_8")
    with pytest.raises(BadInput, match="1,024 latents, its folder is called W2K; expected 2,048"):
        describe(wider)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"sae_type": "crosscoder"},
            "sae_type 'crosscoder', a crosscoder: its latents are sums over",
        ),
        ({"sae_type": "clt"}, "a cross-layer transcoder with all layers in one file"),
        ({"sae_type": "lorsa"}, "sparse attention"),
        ({"act_fn": "batchtopk"}, "its choice of latents depends on the batch"),
        ({"use_glu_encoder": True}, "use_glu_encoder True"),
        ({"norm_activation": "batch-wise"}, "the norm of a batch depends on the batch"),
        (
            {"hook_point_in": "blocks.9.hook_mlp_out"},
            r"no tensor dataset_average_activation_norm\.bl",
        ),
    ],
)
def test_what_lm_saes_holds_besides_is_refused_by_name(tmp_path, change, said):
    lm_saes()(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "config.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(BadInput, match=said):
        describe(tmp_path / "sae")


def test_crosscoders_of_dictionary_learning_are_refused_with_the_reason(tmp_path):
    dictionary("BatchTopKCrossCoder")(tmp_path / "sae", parameters())
    with pytest.raises(BadInput, match="latents are sums over several layers or models"):
        describe(tmp_path / "sae")


def test_saev_files_without_a_schema_are_refused(tmp_path):
    """Their encoder may subtract b_dec; nothing in the file tells."""
    saev("Relu")(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "sae.pt"
    path.write_bytes(path.read_bytes().replace(b'"schema": 5', b'"schemo": 5', 1))
    with pytest.raises(BadInput, match="without schema numbers"):
        describe(tmp_path / "sae")
