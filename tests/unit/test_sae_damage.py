"""C4: whatever is wrong with one SAE's files is that SAE's, named with the file and what to do; the
others go on. What its headers say is seen while planning."""

import json
import pickle
from pathlib import Path

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
    encode,
    parameters,
    rows,
    save_saelens,
    targets,
)
from safetensors.numpy import load_file, save_file
from test_sae_encode import assert_same
from test_sae_formats import (
    WRITERS,
    dictionary,
    gemma_scope,
    goodfire,
    llama_scope,
    lm_saes,
    old_saelens,
    saev,
    sparsify,
    transcoder,
    write_json,
)

from actprobe import sae
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.sae.blame import blaming

PLAIN = {"standard": {}, "topk": {"k": K}, "abstopk": {"k": K}, "jumprelu": {}, "gated": {}}
RESCALED = {"k": K, "rescale_acts_by_decoder_norm": True}


def broken(folder, name, value, architecture="standard", at=7, **cfg):
    """A SAELens folder with one value of one tensor replaced."""
    p = parameters(architecture)
    p[name].reshape(-1)[at] = value
    return save_saelens(folder, p, architecture=architecture, **(cfg or PLAIN[architecture]))


def refusal(tmp_path, folder, **entry):
    """What is said of an SAE that cannot be used."""
    with pytest.raises(ActprobeError) as e:
        codes(tmp_path, folder, rows(30), **entry)
    return str(e.value)


# -- values


@pytest.mark.parametrize("architecture", PLAIN)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_c4_a_weight_of_the_decoder_that_is_no_number(tmp_path, architecture, value):
    folder = broken(tmp_path / "sae", "W_dec", value, architecture, at=70 * D + 3)
    p = parameters(architecture)
    x = np.linalg.lstsq(p["W_enc"].T, np.eye(F)[70] * 99, rcond=None)[0].astype(np.float32)
    with pytest.raises(ActprobeError, match="W_dec: a weight of latent 70 is not finite"):
        codes(tmp_path, folder, np.vstack([x * s for s in (50, 60, 70)]))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("entry", [{"fold_decoder_norm": True}, {}], ids=["folded", "rescaled"])
def test_c4_norms_of_such_a_decoder(tmp_path, value, entry):
    cfg, kind = ({}, "standard") if entry else (RESCALED, "topk")
    folder = broken(tmp_path / "sae", "W_dec", value, kind, at=70 * D + 3, **cfg)
    assert "W_dec: a weight of latent 70 is not finite" in refusal(tmp_path, folder, **entry)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    ("name", "architecture"),
    [("b_enc", a) for a in ("standard", "topk", "abstopk", "jumprelu")]
    + [("b_gate", "gated"), ("b_mag", "gated"), ("r_mag", "gated"), ("b_dec", "standard")],
)
def test_c4_a_bias_that_is_no_number_or_infinite(tmp_path, name, architecture, value):
    said = refusal(tmp_path, broken(tmp_path / "sae", name, value, architecture))
    word = "no number (NaN)" if np.isnan(value) else "infinite"
    assert f"sae_weights.safetensors: value 7 of {name} is {word} (fetch it again" in said
    assert "saes.s" in said or "targets cannot be made" in said


def test_c4_a_threshold_that_is_no_number_and_one_that_is_never_passed(tmp_path):
    said = refusal(tmp_path, broken(tmp_path / "nan", "threshold", np.nan, "jumprelu"))
    assert "value 7 of threshold is no number (NaN)" in said
    folder = broken(tmp_path / "never", "threshold", np.inf, "jumprelu")
    p = parameters("jumprelu")
    p["threshold"][7] = np.inf
    assert_same(codes(tmp_path, folder, rows(30)), dense(p, rows(30), "jumprelu"))


def test_c4_thresholds_below_zero_are_zero_as_in_sae_lens(tmp_path):
    folder = broken(tmp_path / "sae", "threshold", -0.5, "jumprelu")
    p = parameters("jumprelu")
    p["threshold"][7] = -0.5
    assert_same(codes(tmp_path, folder, rows(30)), dense(p, rows(30), "jumprelu"))


def test_c4_a_threshold_that_was_never_set(tmp_path):
    """dictionary_learning's BatchTopK begins with -1, with which every latent fires."""
    dictionary("BatchTopKSAE")(tmp_path / "sae", parameters())
    import torch

    path = tmp_path / "sae" / "ae.pt"
    torch.save(torch.load(path) | {"threshold": torch.tensor(-1.0)}, path)
    assert "its threshold is -1, which stands for one that was never set" in refusal(
        tmp_path, tmp_path / "sae"
    )


def test_c4_where_negative_thresholds_mean_something_else_they_are_refused(tmp_path):
    p = parameters()
    transcoder("jump_relu")(tmp_path / "sae", p)
    path = tmp_path / "sae" / "layer_4.safetensors"
    state = load_file(path)
    state["activation_function.threshold"][7] = -0.5
    save_file(state, path)
    said = refusal(tmp_path, tmp_path / "sae", overrides={"ignore_mismatch": True})
    assert "the threshold of latent 7 is -0.5: negative latents above it would be kept" in said


@pytest.mark.parametrize("folded", [True, False])
def test_c4_decoder_rows_of_norm_zero(tmp_path, folded):
    """A latent of no decoder row is folded with 1e-8, and never chosen by a rescaled top k: as in
    SAELens."""
    p = parameters()
    p["W_dec"][::3] = 0
    kind, cfg = ("standard", {}) if folded else ("topk", RESCALED)
    folder = save_saelens(tmp_path / "sae", p, architecture=kind, **cfg)
    found = codes(tmp_path, folder, rows(30), fold_decoder_norm=folded)
    norms = np.linalg.norm(p["W_dec"].astype(np.float64), axis=1)
    if folded:
        expected = dense(p, rows(30), "standard") * np.maximum(norms, 1e-8)
    else:
        expected = dense(p, rows(30), "topk", rescale=True)
    assert_same(found, expected)


def test_c4_codes_that_overflow(tmp_path):
    p = parameters()
    p["W_enc"][:, 5] = 3e38
    folder = save_saelens(tmp_path / "sae", p)
    xs = {"huge": rows(3) * np.float32(1e6), "good": rows(9) * np.float32(1e-9)}
    known = activations(tmp_path, xs)
    cfg = config(tmp_path, {"s": {"source": str(folder)}}, on_bad_dataset="skip")
    found = encode(cfg, known)
    with pytest.raises(BadInput, match=r"row \d has latents of s that are not finite"):
        sae.open_latents(found["huge"].path)
    assert sae.open_latents(found["good"].path).shape == (9, F)


# -- headers, seen in the plan


def rewritten(folder, change):
    path = folder / "sae_weights.safetensors"
    state = load_file(path)
    change(state)
    save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("W_dec"), "no tensor W_dec; it holds W_enc, b_dec, b_enc"),
        (lambda s: s.pop("b_enc"), "no tensor b_enc"),
        (lambda s: s.update(W_enc=s["W_enc"].T), r"W_enc has shape \[100, 16\], expected \[16, 100\], "
         "the other way round"),
        (lambda s: s.update(W_dec=s["W_dec"][:, :-1]), r"W_dec has shape \[100, 15\], expected"),
        (lambda s: s.update(b_enc=s["b_enc"][None]), r"b_enc has shape \[1, 100\], expected \[100\]"),
        (lambda s: s.update(b_dec=s["b_dec"][:1]), r"b_dec has shape \[1\], expected \[16\]"),
        (lambda s: s.update(W_enc=s["W_enc"].astype(np.int32)), "W_enc is I32; expected F64, F32, F16"),
        (lambda s: s.update(b_enc=s["b_enc"] > 0), "b_enc is BOOL; expected"),
        (lambda s: s.update({"encoder.weight": s["W_enc"].T}), "holds W_enc twice, as W_enc and"),
        (lambda s: s.update({"encoder.bias": s["b_enc"]}), "holds b_enc twice, as b_enc and encoder"),
        (lambda s: s.update({"decoder_bias": s["b_dec"]}), "holds b_dec twice, as b_dec and"),
    ],
)  # fmt: skip
def test_c4_headers_are_compared_with_the_config_while_planning(tmp_path, change, said):
    folder = rewritten(save_saelens(tmp_path / "sae", parameters()), change)
    cfg, known = (
        config(tmp_path, {"s": {"source": str(folder)}}),
        activations(tmp_path, {"a": rows(3)}),
    )
    with pytest.raises(ConfigError, match=rf"saes\.s\.source: .*sae_weights\.safetensors: {said}"):
        targets(cfg, known)


def test_c4_two_thresholds_of_two_kinds(tmp_path):
    folder = rewritten(
        save_saelens(tmp_path / "sae", parameters("jumprelu"), architecture="jumprelu"),
        lambda s: s.update({"activation.threshold": s["threshold"]}),
    )
    assert "holds threshold twice" in refusal(tmp_path, folder)


@pytest.mark.parametrize("name", ["b_gate", "W_E_glu", "activation_mean", "whitening_matrix"])
def test_c4_tensors_that_would_change_the_codes_are_refused(tmp_path, name):
    folder = rewritten(
        save_saelens(tmp_path / "sae", parameters()), lambda s: s.update({name: s["b_enc"] * 0 + 2})
    )
    assert f"not supported: it holds {name}, which an SAE of this kind (standard)" in refusal(
        tmp_path, folder
    )


def test_c4_tensors_that_change_nothing_are_passed_over(tmp_path):
    """What training left, and buffers that were never set (NaN)."""
    folder = rewritten(
        save_saelens(tmp_path / "sae", parameters()),
        lambda s: s.update(
            activation_mean=s["b_dec"] * np.nan, n_forward_passes=np.arange(3), sparsity=s["b_enc"]
        ),
    )
    assert_same(codes(tmp_path, folder, rows(9)), dense(parameters(), rows(9), "standard"))


@pytest.mark.parametrize("factor", ["scaling_factor", "finetuning_scaling_factor"])
def test_c4_a_scaling_factor_under_either_name(tmp_path, factor):
    folder = rewritten(
        save_saelens(tmp_path / "sae", parameters()),
        lambda s: s.update({factor: s["b_enc"] * 0 + 2}),
    )
    assert "a finetuning scaling_factor other than one" in refusal(tmp_path, folder)


# -- every format, and PyTorch files of all kinds


IN_PLACE = {
    "saelens": (lambda f, p: save_saelens(f, p), "sae_weights.safetensors"),
    "saelens_5": (old_saelens, "sae_weights.safetensors"),
    "llama_scope": (llama_scope, "checkpoints/final.safetensors"),
    "lm_saes": (lm_saes(act_fn="relu"), "sae_weights.safetensors"),
    "sparsify": (sparsify, "sae.safetensors"),
    "circuit_tracer": (transcoder(), "layer_4.safetensors"),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_c4_a_bad_bias_is_named_in_every_format(tmp_path, name):
    write, file = IN_PLACE[name]
    write(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / file
    state = load_file(path)
    bias = next(k for k in ("b_enc", "encoder.bias", "b_E") if k in state)
    state[bias][3] = -np.inf
    save_file(state, path)
    said = refusal(tmp_path, tmp_path / "sae", overrides={"ignore_mismatch": True})
    assert f"{path}: value 3 of {bias} is infinite" in said


@pytest.mark.parametrize("name", [n for n in WRITERS if "clt" not in n])
def test_c4_a_file_cut_short_is_named_in_every_format(tmp_path, name):
    WRITERS[name](tmp_path / "sae", parameters("jumprelu" if "jumprelu" in name else "standard"))
    files = sorted((tmp_path / "sae").rglob("*"), key=lambda f: f.stat().st_size * f.is_file())
    files[-1].write_bytes(files[-1].read_bytes()[:-700])
    folder = files[-1].parent if name == "qwen_scope" else tmp_path / "sae"
    assert str(files[-1]) in refusal(tmp_path, folder, overrides={"ignore_mismatch": True})


class Evil:
    def __reduce__(self):
        return (open, ("/dev/null",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"encoder_linear.weight": Evil()}),
        json.dumps({"a": 1}).encode() + b"\n",
    ],
    ids=["empty", "text", "list", "object", "json"],
)
@pytest.mark.parametrize("write", [dictionary("AutoEncoder"), goodfire, saev("Relu")])
def test_c4_what_is_no_state_dict(tmp_path, write, content):
    write(tmp_path / "sae", parameters())
    [path] = [p for p in (tmp_path / "sae").iterdir() if p.suffix in (".pt", ".pth")]
    path.write_bytes(content)
    said = refusal(tmp_path, tmp_path / "sae", overrides={"ignore_mismatch": True})
    assert str(path) in said and "Traceback" not in said


@pytest.mark.parametrize("how", ["old", "wrapped", "parameters", "extra", "half"])
def test_state_dicts_as_people_save_them(tmp_path, how):
    """Files of torch before 1.6, dicts around the dict, Parameters, plain values beside tensors."""
    import torch

    p = parameters()
    goodfire(tmp_path / "sae", p)
    path = tmp_path / "sae" / "tiny-SAE-l4.pth"
    state = torch.load(path)
    if how == "old":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    if how == "wrapped":
        torch.save({"state_dict": state, "epoch": 3}, path)
    if how == "parameters":
        torch.save({k: torch.nn.Parameter(v) for k, v in state.items()}, path)
    if how == "extra":
        torch.save(
            state | {"step": 3, "name": "x", "size": torch.Size([3]), "ids": torch.arange(3)}, path
        )
    if how == "half":
        torch.save({k: v.bfloat16() for k, v in state.items()}, path)
        p = {k: torch.from_numpy(v).bfloat16().float().numpy() for k, v in p.items()}
    x, ignore = rows(30), {"ignore_mismatch": ["site", "model"]}
    found = codes(tmp_path, tmp_path / "sae", x, overrides=ignore)
    assert_same(found, dense(p, x, "standard", b_dec=False))


# -- one SAE's trouble is no other's


def two(tmp_path, **more):
    """A config with a damaged and a good SAE, and activations of two datasets."""
    bad = rewritten(save_saelens(tmp_path / "bad", parameters()), lambda s: s.pop("b_enc"))
    good = save_saelens(tmp_path / "good", parameters())
    entries = {"bad": {"source": str(bad)}, "good": {"source": str(good)}}
    return config(tmp_path, entries, **more), activations(tmp_path, {"a": rows(3), "b": rows(4)})


def test_c4_with_skip_a_damaged_sae_is_left_out_and_the_others_encode(tmp_path, caplog):
    cfg, known = two(tmp_path, on_bad_dataset="skip")
    ts = targets(cfg, known)["latents"]
    assert "saes.bad will be left out" in caplog.text and len(ts) == 4
    for name in ("bad", "good"):
        sae.run(batch([t for t in ts if t.loader == name]), cfg, 1)
    for t in ts:
        if t.loader == "good":
            assert sae.open_latents(t.path).shape[1] == F
        else:
            with pytest.raises(BadInput, match="no tensor b_enc"):
                sae.open_latents(t.path)
    again = rewritten(
        save_saelens(Path(cfg["saes"]["bad"]["source"]), parameters()), lambda s: None
    )
    assert {t.key for t in targets(cfg, known)["latents"]}.isdisjoint(
        t.key for t in ts if t.loader == "bad"
    ), again  # once it is put right it is another one


def test_c4_without_skip_the_plan_names_every_sae_that_is_wrong(tmp_path):
    cfg, known = two(tmp_path)
    write_json(
        tmp_path / "good" / "cfg.json", {"architecture": "topk", "d_in": D, "d_sae": F, "k": 0}
    )
    with pytest.raises(ConfigError, match=r"saes\.bad\.source: .*\nsaes\.good\.source: .*k is 0"):
        targets(cfg, known)


def test_c4_a_folder_without_an_sae_is_no_bad_input(tmp_path):
    """A mistyped path is not skipped."""
    cfg = config(tmp_path, {"s": {"source": str(tmp_path / "x")}}, on_bad_dataset="skip")
    with pytest.raises(ConfigError, match=r"saes\.s\.source: .*no SAE found"):
        targets(cfg, activations(tmp_path, {"a": rows(3)}))


def test_c4_what_a_library_raises_in_a_job_is_that_saes(tmp_path, monkeypatch):
    folder = save_saelens(tmp_path / "sae", parameters())
    known = activations(tmp_path, {"a": rows(3)})
    cfg = config(tmp_path, {"s": {"source": str(folder)}}, on_bad_dataset="skip")
    ts = targets(cfg, known)["latents"]

    def strange(*_):
        raise ZeroDivisionError("a library's own words")

    monkeypatch.setattr("actprobe.sae.session.Weights", strange)
    sae.run(batch(ts), cfg, 1)
    with pytest.raises(
        BadInput, match=r"saes\.s: cannot be read \(ZeroDivisionError; fetch its files"
    ):
        sae.open_latents(ts[0].path)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "disk"), ConfigError("c"), KeyboardInterrupt()]
)
def test_c4_what_is_not_the_saes_passes(error):
    with pytest.raises(type(error)), blaming("saes.s"):
        raise error


def test_c4_a_conversion_that_fails_leaves_the_reason(tmp_path):
    dictionary("AutoEncoder")(tmp_path / "sae", parameters())
    (tmp_path / "sae" / "ae.pt").write_bytes(b"x")
    cfg = config(tmp_path, {"s": {"source": str(tmp_path / "sae")}}, on_bad_dataset="skip")
    known = activations(tmp_path, {"a": rows(3)})
    t = encode(cfg, known)["a"]
    with pytest.raises(BadInput, match=r"ae\.pt: not a file of torch\.save"):
        sae.open_latents(t.path)


def test_c4_damage_after_the_plan(tmp_path):
    folder = save_saelens(tmp_path / "sae", parameters())
    cfg, known = (
        config(tmp_path, {"s": {"source": str(folder)}}),
        activations(tmp_path, {"a": rows(3)}),
    )
    ts = targets(cfg, known)["latents"]
    (folder / "cfg.json").write_text("{")
    with pytest.raises(ActprobeError, match=r"cfg\.json: cannot be read as JSON"):
        sae.run(batch(ts), cfg, 1)


def test_a_gemma_scope_archive_of_other_arrays(tmp_path):
    gemma_scope(tmp_path / "sae", parameters())
    path = tmp_path / "sae" / "params.npz"
    with np.load(path) as z:
        np.savez(path, **{**z, "w_enc": z["w_enc"].astype(object)})
    with pytest.raises(ConfigError, match=r"params\.npz"):
        codes(tmp_path, tmp_path / "sae", rows(5))
