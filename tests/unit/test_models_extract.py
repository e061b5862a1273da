"""Activations against plain forward passes of one row at a time, family by family."""

import numpy as np
import pytest
import torch
import transformers
from models_tiny import (
    ENCODERS,
    EXPERTS,
    FAMILIES,
    N_LAYERS,
    PARALLEL,
    TEXTS,
    UNMAPPED,
    by_name,
    make_config,
    model_entry,
    run,
    save_model,
    tiny_run,
    write_texts,
)
from torch import nn

from actprobe import models
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store
from actprobe.models import extract
from actprobe.models.artefact import bf16_to_float32
from actprobe.models.extract import to_storable
from actprobe.models.sites import find_layers

POST_NORM = [f for f in ENCODERS if f != "modernbert"]
NORMS = {  # after the attention and after the MLP, where they are not BERT's
    "mpnet": ("attention.LayerNorm", "output.LayerNorm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
}
POOLED = ["last", "first", "mean", "max"]


def sites_of(family):
    sites = ["resid_pre.*", "resid_post.*"]
    if family not in UNMAPPED:
        sites += ["embed", "attn_out.*", "mlp_out.*", "z.*", "mlp_in.*"]
    if family not in (*UNMAPPED, *EXPERTS):
        sites += ["mlp_post.*"]
    return sites + (["resid_mid.*"] if family not in (*UNMAPPED, *PARALLEL) else [])


@pytest.fixture(scope="module")
def family(request, tmp_path_factory):
    """A family's name, its model, and {site.position: [N, d]} of all its sites."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    save_model(name, folder / "model")
    config = make_config(
        folder,
        model_entry(folder / "model", max_tokens_per_batch=100),
        {"sites": sites_of(name), "positions": POOLED},
    )
    found = by_name(run(config, write_texts(folder)))
    x = {k: models.load_activations(t.path, t.key) for k, t in found.items()}
    model = transformers.AutoModel.from_pretrained(folder / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    return name, model, tokenizer, x


def alone(model, tokenizer, text, module=None):
    """Hidden states of one row, and the output of `module` when given."""
    seen = []
    handle = module and module.register_forward_hook(lambda m, i, o: seen.append(o))
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    if handle:
        handle.remove()
        out = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        return out.reshape(ids.shape[1], -1)
    return [h[0] for h in states]


def pooled(h, name):
    """The four positions of [tokens, d]; special tokens stand at the ends."""
    content = h[1:-1] if name in ENCODERS else h[1:]
    return {"last": h[-1], "first": h[0], "mean": content.mean(0), "max": content.amax(0)}


def assert_close(found, expected, scale):
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * float(scale))


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_residual_stream_and_embedding(family):
    name, model, tokenizer, x = family
    for i, text in enumerate(TEXTS):
        states = alone(model, tokenizer, text)
        for layer in range(N_LAYERS):
            sites = {f"resid_pre.{layer}": states[layer]}
            if layer < N_LAYERS - 1 or name in POST_NORM:  # else hidden_states are normed
                sites[f"resid_post.{layer}"] = states[layer + 1]
            for site, h in sites.items():
                for position, expected in pooled(h, name).items():
                    assert_close(x[f"{site}.{position}"][i], expected, h.abs().max())


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in POST_NORM], indirect=True)
def test_the_last_layer_is_read_before_the_final_norm(family):
    _, model, tokenizer, x = family
    ends = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "final_norm")
    norms = [p + end for p in ("", "decoder.", "language_model.") for end in ends]
    norm = next(m for n, m in model.named_modules() if n in norms)
    for i, text in enumerate(TEXTS):
        normed = alone(model, tokenizer, text)[-1][-1]
        with torch.inference_mode():
            found = norm(torch.from_numpy(x[f"resid_post.{N_LAYERS - 1}.last"][i]))
        assert_close(found.numpy(), normed, normed.abs().max())


PRE_NORM = [f for f in FAMILIES if f not in (*POST_NORM, *UNMAPPED, *PARALLEL)]


@pytest.mark.parametrize("family", PRE_NORM, indirect=True)
@pytest.mark.parametrize("position", ["last", "mean"])
def test_sublayers_add_up_to_the_stream(family, position):
    _, _, _, x = family
    for n in range(N_LAYERS):
        pre, attn, mid, mlp, post = (
            x[f"{site}.{n}.{position}"]
            for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        np.testing.assert_allclose(pre + attn, mid, atol=1e-4)
        np.testing.assert_allclose(mid + mlp, post, atol=1e-4)


# What takes z, the neurons, and the input of the MLP; the norms after attention and MLP.
_LLAMA = ("self_attn.o_proj", "mlp.down_proj", "mlp")
_GEMMA = (*_LLAMA, "post_attention_layernorm", "post_feedforward_layernorm")
_NEOX = ("attention.dense", "mlp.dense_4h_to_h", "mlp")
INSIDE = {
    "gemma2": _GEMMA, "gemma3": _GEMMA, "gemma3_multimodal": _GEMMA,
    "olmo2": _GEMMA, "olmo3": _GEMMA,
    "glm4": (*_LLAMA, "post_self_attn_layernorm", "post_mlp_layernorm"),
    "starcoder2": ("self_attn.o_proj", "mlp.c_proj", "mlp"),
    "phi": ("self_attn.dense", "mlp.fc2", "mlp"), "gptj": ("attn.out_proj", "mlp.fc_out", "mlp"),
    "gpt2": ("attn.c_proj", "mlp.c_proj", "mlp"),
    "gpt_neo": ("attn.attention.out_proj", "mlp.c_proj", "mlp"),
    "neox": _NEOX, "neox_sequential": _NEOX, "opt": ("self_attn.out_proj", "fc2", None),
    "mpnet": ("attention.attn.o", "output.dense", None),
    "distilbert": ("attention.out_lin", "ffn.lin2", "ffn"), "modernbert": ("attn.Wo", "mlp.Wo", "mlp"),
    **dict.fromkeys(("bert", "roberta", "electra", "deberta"),
                    ("attention.output.dense", "output.dense", None)),
    **dict.fromkeys(EXPERTS, ("self_attn.o_proj", None, "mlp")),
}  # fmt: skip


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in UNMAPPED], indirect=True)
@torch.inference_mode()
def test_inside_attention_and_mlp(family):
    """What takes z makes attn_out of it, what takes mlp_in or mlp_post makes mlp_out."""
    name, model, _, x = family
    attn, neurons, mlp, *norms = INSIDE.get(name, _LLAMA)
    for n, layer in enumerate(find_layers(model, N_LAYERS, None)[1]):
        after = [layer.get_submodule(p) for p in norms] or [nn.Identity()] * 2
        for module, site, norm, out in (
            (attn, "z", after[0], "attn_out"),
            (neurons, "mlp_post", after[1], "mlp_out"),
            (mlp, "mlp_in", after[1], "mlp_out"),
        ):
            if module is not None:
                made = layer.get_submodule(module)(torch.from_numpy(x[f"{site}.{n}.last"])[None])
                made = norm(made[0] if isinstance(made, tuple) else made)
                expected = torch.from_numpy(x[f"{out}.{n}.last"])
                assert_close(made.reshape(expected.shape).numpy(), expected, expected.abs().max())


@pytest.mark.parametrize(
    "family", ["opt", "bert", "roberta", "electra", "mpnet", "deberta"], indirect=True
)
@torch.inference_mode()
def test_what_the_mlp_takes_where_it_is_no_module(family):
    name, model, _, x = family
    for n, layer in enumerate(find_layers(model, N_LAYERS, None)[1]):
        mid = torch.from_numpy(x[f"resid_mid.{n}.last"])
        if name == "opt":
            taken = layer.final_layer_norm(mid)
            neurons = layer.activation_fn(layer.fc1(taken))
        else:
            taken = layer.get_submodule(NORMS.get(name, ("attention.output.LayerNorm",))[0])(mid)
            neurons = layer.intermediate(taken)
        assert_close(x[f"mlp_in.{n}.last"], taken, taken.abs().max())
        assert_close(x[f"mlp_post.{n}.last"], neurons, neurons.abs().max())


@pytest.mark.parametrize("family", PARALLEL, indirect=True)
def test_parallel_blocks_add_both(family):
    _, _, _, x = family
    for n in range(N_LAYERS):
        total = x[f"resid_pre.{n}.last"] + x[f"attn_out.{n}.last"] + x[f"mlp_out.{n}.last"]
        np.testing.assert_allclose(total, x[f"resid_post.{n}.last"], atol=1e-4)


@pytest.mark.parametrize("family", POST_NORM, indirect=True)
def test_post_norm_encoders(family):
    name, model, _, x = family
    first, second = NORMS.get(name, ("attention.output.LayerNorm", "output.LayerNorm"))
    for n, layer in enumerate(find_layers(model, N_LAYERS, None)[1]):
        pre, attn, mid, mlp, post = (
            torch.from_numpy(x[f"{site}.{n}.last"])
            for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        with torch.inference_mode():
            normed = layer.get_submodule(first)(mid)
            expected = layer.get_submodule(second)(normed + mlp)
        torch.testing.assert_close(pre + attn, mid, rtol=0, atol=1e-5)
        torch.testing.assert_close(expected, post, rtol=0, atol=1e-5)


APART = ("gpt2", "gpt_neo", "opt", *ENCODERS)  # positions or a norm come before layer 0


@pytest.mark.parametrize("family", ["llama", "gemma", "gemma2", "gptj", *APART], indirect=True)
def test_embed_is_the_token_embedding(family):
    name, model, tokenizer, x = family
    for i, text in enumerate(TEXTS):
        h = alone(model, tokenizer, text, model.get_input_embeddings())
        assert_close(x["embed.last"][i], h[-1], h.abs().max())
    assert np.array_equal(x["embed.last"], x["resid_pre.0.last"]) == (name not in APART)


# Some say in their config what each layer is, or which layers are of which kind.
@pytest.mark.parametrize(
    "family",
    ["llama", "gemma3", "olmo3", "smollm3", "gpt_oss", "deepseek_v3", "gpt_neo", "modernbert"],
    indirect=True,
)
def test_fewer_sites_give_the_same_bits(family, tmp_path):
    """Later layers are not even loaded; what is read does not change."""
    name, _, _, x = family
    save_model(name, tmp_path / "model")
    config = make_config(
        tmp_path,
        model_entry(tmp_path / "model", max_tokens_per_batch=100),
        {"sites": ["resid_post.1"], "positions": ["last"]},
    )
    [t] = run(config, write_texts(tmp_path))
    assert np.array_equal(models.load_activations(t.path), x["resid_post.1.last"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, tmp_path):
    folder = save_model("llama", tmp_path / "model")
    wanted = {"sites": ["resid_post.1"], "positions": ["last", "mean", "max", "tokens"]}
    texts = write_texts(tmp_path)
    half = by_name(run(make_config(tmp_path, model_entry(folder, dtype=dtype), wanted), texts))
    full = by_name(run(make_config(tmp_path, model_entry(folder), wanted), texts))
    for position, t in half.items():
        with models.open_activations(t.path) as a:
            stored = {"bfloat16": "uint16", "float16": "float16"}[dtype]
            assert a.x.dtype == ("float32" if position.endswith("mean") else stored)
            values = a[:]
        reference = models.load_activations(full[position].path)
        error = np.linalg.norm(values - reference) / np.linalg.norm(reference)
        assert 0 < error < 0.03


def test_bfloat16_bits():
    bits = {1.0: 0x3F80, 2.5: 0x4020, 0.1: 0x3DCD, 1 / 3: 0x3EAB, 65504.0: 0x4780, 7e5: 0x492B}
    bits |= {-0.0: 0x8000, float("inf"): 0x7F80, 1.00390625: 0x3F80, 1.01171875: 0x3F82}
    for value, expected in bits.items():
        assert to_storable(torch.tensor([value], dtype=torch.bfloat16))[0] == expected
    every = np.arange(1 << 16, dtype=np.uint16)
    values = bf16_to_float32(every)
    again = to_storable(torch.from_numpy(values).to(torch.bfloat16))
    assert np.array_equal(again[~np.isnan(values)], every[~np.isnan(values)])
    assert np.isnan(values).sum() == 254 and (~np.isfinite(values)).sum() == 256


CAUSAL = [f for f in FAMILIES if f not in (*ENCODERS, *UNMAPPED)]


@pytest.mark.parametrize("name", CAUSAL)
def test_a_shared_prefix_is_computed_once(name, tmp_path, monkeypatch):
    texts = ["The same long instruction for every row: " + t for t in TEXTS]
    wanted = {"sites": ["embed", "resid_post.1", "mlp_out.2"], "positions": [*POOLED, "tokens"]}
    changes = {"family": name, "texts": texts, "wanted": wanted, "max_tokens_per_batch": 150}
    plain = tiny_run(tmp_path, **changes)
    lengths, original = [], extract._pass

    def spy(model, sites, read, **inputs):
        lengths.append(inputs["input_ids"].shape[1])
        original(model, sites, read, **inputs)

    monkeypatch.setattr(extract, "_pass", spy)
    shared = tiny_run(tmp_path, **changes, share_prefix=True)
    assert store.read_header(shared["embed.last"].path)["facts"]["shared"] == {
        "inside": 0, "prefixes": 1, "behind": 9, "tokens_saved": 8 * 42,
    }  # fmt: skip
    assert 42 in lengths and min(lengths[-3:]) < 42  # the prefix, then rows without it
    for site, t in plain.items():
        expected, found = (models.load_activations(x.path) for x in (t, shared[site]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_encoders_share_no_prefix(tmp_path):
    with pytest.raises(ConfigError, match=r"models.m.share_prefix: only for causal decoders"):
        tiny_run(tmp_path, family="bert", share_prefix=True)


def test_a_multimodal_model_is_read_in_its_language_part(tmp_path):
    found = tiny_run(tmp_path, family="gemma3_multimodal")["resid_post.1.last"]
    assert store.read_header(found.path)["facts"]["module"] == "language_model.layers.1"


class TwoStacks(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.text, self.vision = (nn.ModuleList(nn.Linear(1, 1) for _ in range(n)) for n in (a, b))


def test_the_layer_list_is_found_by_its_length():
    model = TwoStacks(4, 2)
    assert find_layers(model, 4, None) == ("text", model.text)
    assert find_layers(TwoStacks(4, 4), 4, "vision")[0] == "vision"
    with pytest.raises(
        ActprobeError, match=r"not exactly one of 4 layers.*text \(4\), vision \(4\)"
    ):
        find_layers(TwoStacks(4, 4), 4, None)
    with pytest.raises(ActprobeError, match=r"no list at 'layers'.*set layer_list"):
        find_layers(model, 4, "layers")


def test_a_missing_mask_is_seen_before_and_on_the_data(tmp_path, monkeypatch):
    from actprobe.models import families, trial

    monkeypatch.setattr(families, "needs_mask", lambda config: False)
    with pytest.raises(ActprobeError, match=r"resid_post.1 of a row of 4 tokens differs by"):
        tiny_run(tmp_path, family="bert")
    monkeypatch.setattr(trial, "_compare", lambda *args: None)
    with pytest.raises(
        ActprobeError, match=r"self-check failed at resid_post.1.last: rows in a pad"
    ):
        tiny_run(tmp_path, family="bert")


def test_missing_weights_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_model("llama", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ActprobeError, match=r"1 weights are not in its files, e.g. layers.1.mlp"):
        tiny_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 64}, r"models.m.d_model: 64, but the model has 32"),
        ({"max_length": 500}, r"models.m.max_length: 500, but the model has 256 positions"),
    ],
)
def test_settings_are_checked_before_weights_are_read(tmp_path, changes, message):
    folder = save_model("gpt2", tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(ConfigError, match=message):
        tiny_run(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "mps"}, "device mps is not available on this machine"),
        ({"device_map": "auto"}, "models.m.device_map: needs the package accelerate, which is not"),
        ({"layer_list": "layer"}, r"no list at 'layer'; lists in the model: layers \(2\)"),
    ],
)
def test_what_this_machine_or_model_does_not_have(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(transformers.utils, "is_accelerate_available", lambda: False)
    with pytest.raises(ActprobeError, match=message):
        tiny_run(tmp_path, **changes)


@pytest.mark.parametrize("offloaded", [[], ["layers.1"], ["embed_tokens", "layers.0", "layers.1"]])
def test_a_device_map(tmp_path, offloaded):
    names = ["embed_tokens", "layers.0", "layers.1", "norm", "rotary_emb"]
    parts = {name: "disk" if name in offloaded else "cpu" for name in names}
    mapped = tiny_run(tmp_path, device_map=parts)["resid_post.1.last"]
    plain = tiny_run(tmp_path / "plain")["resid_post.1.last"]
    expected = models.load_activations(plain.path)
    assert np.array_equal(models.load_activations(mapped.path), expected)


def test_damaged_weights_name_the_model(tmp_path):
    folder = save_model("llama", tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ActprobeError, match=r"models.m cannot be loaded: "):
        tiny_run(tmp_path)


def test_long_rows_are_cut_to_the_positions_of_the_model(tmp_path):
    found = tiny_run(tmp_path, texts=["x" * 1000, "short"], family="gpt2")
    with models.open_activations(found["resid_post.1.last"].path) as a:
        assert a.n_tokens.tolist() == [256, 6]


def test_ragged_tokens(tmp_path):
    wanted = {"sites": ["embed"], "positions": ["tokens", "mean"]}
    found = tiny_run(tmp_path, texts=["abcdef", "x", "yz"], wanted=wanted, max_tokens_per_batch=7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    mean = models.load_activations(found["embed.mean"].path)
    with models.open_activations(found["embed.tokens"].path) as a:
        assert a.offsets.tolist() == [0, 6, 7, 9]  # without BOS
        assert tokenizer.decode(a.token_ids) == "abcdefxyz"
        assert a.n_tokens.tolist() == [7, 2, 3]  # with it
        for i in range(3):
            row = a[a.offsets[i] : a.offsets[i + 1]]
            np.testing.assert_allclose(row.mean(0), mean[i], atol=1e-6)
