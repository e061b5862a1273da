"""Adapters on a model: peft's own numbers, what identifies them, and adapters of another base."""

# ruff: noqa: F401, F811

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hub_server import loopback
from models_tiny import by_name, make_config, model_entry, run, save_model, targets, write_texts
from safetensors.torch import load_file, save_file

from actprobe import models
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store
from actprobe.models import adapters, load

peft = pytest.importorskip("peft")

WANTED = {
    "sites": ["embed", "resid_post.1", "attn_out.2", "resid_post.3"],
    "positions": ["last", "mean"],
}


def trained(folder, base, steps=30, kind="lora", **options):
    """An adapter on the model with a head, trained to continue every text with an `x`."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    options = {"target_modules": ["q_proj", "v_proj", "down_proj"], **options}
    if kind == "lora":
        settings = peft.LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", **options)
    else:
        settings = {"loha": peft.LoHaConfig, "lokr": peft.LoKrConfig}[kind](r=4, alpha=8, **options)
    whole = peft.get_peft_model(model, settings)
    optimizer = torch.optim.Adam((p for p in whole.parameters() if p.requires_grad), lr=0.02)
    ids = torch.randint(3, 250, (8, 12))
    for _ in range(steps):
        labels = torch.full_like(ids, 100)
        whole(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base):
    return trained(tmp_path_factory.mktemp("tuned") / "adapter", base)


def read(tmp_path, base, wanted=WANTED, **changes):
    config = make_config(tmp_path / "cache", model_entry(base, **changes), wanted)
    found = by_name(run(config, write_texts(tmp_path / "cache")))
    return {n: models.load_activations(t.path) for n, t in found.items()}


def by_peft(tmp_path, base, *folders, scale=1.0):
    """Activations of the model that peft merges itself."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    for folder in folders:
        whole = peft.PeftModel.from_pretrained(model, folder)
        for m in whole.modules():
            if isinstance(getattr(m, "scaling", None), dict):
                m.scaling["default"] *= scale
        model = whole.merge_and_unload()
    out = tmp_path / "merged"
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return read(tmp_path / "by_peft", out)


def near(a, b, most=1e-5):
    assert a.keys() == b.keys()
    for n in a:
        np.testing.assert_allclose(a[n], b[n], rtol=most, atol=most * np.abs(b[n]).max(), err_msg=n)


def given(folder, **more):
    return {"source": str(folder), "revision": None, "scale": 1.0, "base": None, **more}


@pytest.mark.parametrize("merged", [True, False])
def test_an_adapter_gives_the_numbers_of_peft(tmp_path, base, tuned, merged):
    found = read(tmp_path, base, adapter=given(tuned), merge_adapters=merged)
    near(found, by_peft(tmp_path, base, tuned))
    plain = read(tmp_path / "plain", base)
    assert not np.allclose(found["resid_post.3.last"], plain["resid_post.3.last"], atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_scale_is_a_factor_of_the_effect(tmp_path, base, tuned, scale):
    found = read(tmp_path, base, adapter=given(tuned, scale=scale))
    near(found, by_peft(tmp_path, base, tuned, scale=scale))
    if scale == 0:
        near(found, read(tmp_path / "plain", base))


@pytest.mark.parametrize("merged", [True, False])
def test_the_effects_of_several_adapters_add_up(tmp_path, base, tuned, merged):
    other = trained(tmp_path / "other", base, 10, target_modules=["k_proj", "up_proj", "q_proj"])
    found = read(tmp_path, base, adapter=[given(tuned), given(other)], merge_adapters=merged)
    near(found, by_peft(tmp_path, base, tuned, other))


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"model.layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": r"model\.layers\.[12]\.self_attn\.(q|k)_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1, 3]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=lambda o: ",".join(o),
)
def test_what_peft_can_say_of_a_lora(tmp_path, base, options):
    folder = trained(tmp_path / "a", base, 5, **options)
    near(read(tmp_path, base, adapter=given(folder)), by_peft(tmp_path, base, folder))


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_others_of_the_family(tmp_path, base, kind):
    folder = trained(tmp_path / "a", base, 5, kind)
    near(read(tmp_path, base, adapter=given(folder)), by_peft(tmp_path, base, folder))


def test_a_model_with_convolutions_for_products(tmp_path):
    base = save_model("gpt2", tmp_path / "gpt2")
    folder = trained(tmp_path / "a", base, 5, target_modules=["c_attn", "c_proj"])
    wanted = {"sites": ["resid_post.1", "resid_post.3"], "positions": ["last"]}
    found = read(tmp_path, base, wanted, adapter=given(folder))
    expected = by_peft_at(tmp_path, base, folder, wanted)
    near(found, expected)


def by_peft_at(tmp_path, base, folder, wanted):
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    model.save_pretrained(tmp_path / "merged")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    return read(tmp_path / "p", tmp_path / "merged", wanted)


def test_layers_that_are_not_loaded_are_passed_over(tmp_path, base, tuned):
    shallow = {"sites": ["resid_post.1"], "positions": ["last"]}
    found = read(tmp_path, base, shallow, adapter=given(tuned))
    deep = read(tmp_path / "b", base, adapter=given(tuned))
    np.testing.assert_allclose(found["resid_post.1.last"], deep["resid_post.1.last"], rtol=1e-6)
    only_deep = trained(tmp_path / "a", base, 5, target_modules=["q_proj"], layers_to_transform=[3])
    found = read(tmp_path / "c", base, shallow, adapter=given(only_deep))
    near(found, {"resid_post.1.last": read(tmp_path / "d", base)["resid_post.1.last"]})


def test_an_untouched_adapter_changes_nothing(tmp_path, base):
    folder = trained(tmp_path / "a", base, 0)
    found, plain = read(tmp_path, base, adapter=given(folder)), read(tmp_path / "b", base)
    for n in plain:
        np.testing.assert_array_equal(found[n], plain[n])


# -- keys


def keys_of(tmp_path, base, **changes):
    config = make_config(tmp_path / "k", model_entry(base, **changes), WANTED)
    return [t.key for t in targets(config, write_texts(tmp_path / "k"))]


def test_what_stands_in_the_key(tmp_path, base, tuned):
    plain, one = keys_of(tmp_path, base), keys_of(tmp_path, base, adapter=given(tuned))
    half = keys_of(tmp_path, base, adapter=given(tuned, scale=0.5))
    applied = keys_of(tmp_path, base, adapter=given(tuned), merge_adapters=False)
    twice = keys_of(tmp_path, base, adapter=[given(tuned), given(tuned)])
    assert len({k[0] for k in (plain, one, half, applied, twice)}) == 5
    copy = shutil.copytree(tuned, tmp_path / "copy")
    assert keys_of(tmp_path, base, adapter=[given(copy)]) == one
    assert keys_of(tmp_path, base, merge_adapters=False) == plain
    (copy / "README.md").write_text("x")
    assert keys_of(tmp_path, base, adapter=given(copy)) == one
    said = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**said, "lora_alpha": 17}))
    assert keys_of(tmp_path, base, adapter=given(copy)) != one


def test_an_adapter_of_the_hub(tmp_path, loopback, base, tuned):
    commit = loopback.add("org/adapter", {f"a/{p.name}": p.read_bytes() for p in tuned.iterdir()})
    source = given("hub:org/adapter/a", revision=commit)
    near(read(tmp_path, base, adapter=source), read(tmp_path / "b", base, adapter=given(tuned)))
    with pytest.raises(
        ConfigError, match=r"models\.m\.adapter\.source: hub:org/adapter at .* has no b/ad"
    ):
        keys_of(tmp_path, base, adapter=given("hub:org/adapter/b", revision=commit))


# -- refusals


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_an_adapter_of_another_base(tmp_path, family, base):
    """Another architecture; and one of the same names and other sizes."""
    other = save_model(family, tmp_path / "other")
    names = ["c_attn"] if family == "gpt2" else ["q_proj", "o_proj"]
    folder = trained(tmp_path / "a", other, 1, target_modules=names)
    if family == "qwen3":
        d = load_file(folder / "adapter_model.safetensors")
        d = {k: torch.cat([v, v], -1) if "lora_A" in k else v for k, v in d.items()}
        save_file(d, folder / "adapter_model.safetensors")
    with pytest.raises(
        ActprobeError, match=r"an adapter of another base: .* it was trained on .*other"
    ):
        read(tmp_path, base, adapter=given(folder))


def test_two_kinds_beside_the_weights(tmp_path, base, tuned):
    other = trained(tmp_path / "a", base, 1, "loha")
    both = [given(tuned), given(other)]
    assert read(tmp_path, base, adapter=both)
    with pytest.raises(
        ConfigError, match=r"models\.m\.adapter: adapters of several kinds \(LORA, L"
    ):
        keys_of(tmp_path, base, adapter=both, merge_adapters=False)


def test_a_base_of_another_name_on_the_hub(tmp_path, loopback, base, tuned):
    commit = loopback.add("org/base", base)
    folder = shutil.copytree(tuned, tmp_path / "adapter")
    said = json.loads((folder / "adapter_config.json").read_text())
    named = {**said, "base_model_name_or_path": "org/another"}
    (folder / "adapter_config.json").write_text(json.dumps(named))
    message = (
        r"models\.m\.adapter\.source: trained on org/another .* the model is org/base: another base"
    )
    with pytest.raises(ConfigError, match=message):
        keys_of(tmp_path, "hub:org/base", revision=commit, adapter=given(folder))
    vouched = given(folder, base="org/another")
    assert keys_of(tmp_path, "hub:org/base", revision=commit, adapter=vouched)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "an adapter of kind PREFIX_TUNING; expected one of LORA"),
        ({"bias": "all"}, "sets bias: all"),
        ({"target_parameters": ["x"]}, "sets target_parameters"),
    ],
)
def test_what_is_not_read(tmp_path, base, tuned, changes, message):
    folder = shutil.copytree(tuned, tmp_path / "adapter")
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, **changes}))
    with pytest.raises(ConfigError, match=rf"models\.m\.adapter\.source: .*{message}"):
        keys_of(tmp_path, base, adapter=given(folder))


def test_what_is_no_adapter(tmp_path, base, tuned):
    with pytest.raises(
        ConfigError, match=r"models\.m\.adapter\[0\]\.source: .*model has no adapter_config"
    ):
        keys_of(tmp_path, base, adapter=[given(base)])
    folder = shutil.copytree(tuned, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model\.bin could run code: load it with peft"):
        keys_of(tmp_path, base, adapter=given(folder))


def test_an_adapter_that_changed_after_the_plan(tmp_path, base, tuned, monkeypatch):
    from actprobe.cache import plan
    from actprobe.models.run import run as run_batch

    folder = shutil.copytree(tuned, tmp_path / "adapter")
    config = make_config(tmp_path / "k", model_entry(base, adapter=given(folder)), WANTED)
    found = targets(config, write_texts(tmp_path / "k"))
    made = plan.make(config, found, [t.path for t in found])
    d = load_file(folder / "adapter_model.safetensors")
    save_file({k: v + 1 for k, v in d.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(
        ActprobeError, match=r"models\.m\.adapter: .*adapter_model\.safetensors.*changed"
    ):
        run_batch(made.batches[0], config, 1)


def test_peft_that_is_missing_is_named(monkeypatch):
    from actprobe.models.adapters import attach

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(attach, "import_module", missing)
    with pytest.raises(
        ConfigError, match=r"models\.m\.adapter: needs the package peft.*actprobe\[adapters"
    ):
        attach.check(None, [adapters.Adapter(None, "", 1.0)], "m", False)
