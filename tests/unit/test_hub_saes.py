"""SAEs on the hub: seen in the plan by names and small files, fetched by the job (section I)."""

# ruff: noqa: F401, F811

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from configs import edited
from hub_server import Fault, loopback
from sae_tiny import (
    activations,
    batch,
    config,
    dense,
    parameters,
    rows,
    save_saelens,
    targets,
)
from test_sae_encode import assert_same
from test_sae_formats import (
    dictionary,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    sparsify,
    write_json,
)

from actprobe import sae
from actprobe.base.errors import ActprobeError, ConfigError, Damaged, Unreachable
from actprobe.config import resolve
from actprobe.experiment import shapes
from actprobe.files import hub
from actprobe.files.hub import asking, layout
from actprobe.sae import sources

META = {"sae_lens_version": "6.1", "model_name": "tiny", "hook_name": "blocks.4.hook_resid_post"}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(asking, "ANSWER", 1.0)
    monkeypatch.setattr(asking, "WHOLE", 2.0)


def saelens(folder, **meta):
    return save_saelens(folder, parameters(), metadata=META | meta)


def plan(tmp_path, source="hub:org/repo/sub", acts=True, on_bad="stop", **entry):
    cfg = config(tmp_path, {"s": {"source": source, **entry}}, on_bad_dataset=on_bad)
    found = targets(cfg, activations(tmp_path, {"a": rows(3)}))
    hub.require_reachable([t.args for stage in found.values() for t in stage], acts)
    return cfg, found


def encoded(tmp_path, source="hub:org/repo/sub", **entry):
    """Codes of three rows, made by the jobs of a plan."""
    cfg, found = plan(tmp_path, source, **entry)
    if found["saes"]:
        sae.make(batch(found["saes"]), cfg, 1)
    sae.run(batch(found["latents"]), cfg, 1)
    return sae.open_latents(found["latents"][0].path).to_scipy().toarray()


def publish(loopback, tmp_path, write, at="sub", **more):
    """A repository that holds what `write` writes at a path, and other files."""
    folder = tmp_path / "repo"
    (folder / at).parent.mkdir(parents=True, exist_ok=True)
    write(folder / at)
    for name, content in more.items():
        (folder / name).write_text(content)
    return loopback.add("org/repo", folder)


# -- I6: the format


@pytest.mark.parametrize(
    ("write", "at", "name"),
    [
        (saelens, "sub", "saelens"),
        (lambda f: gemma_scope(f, parameters()), "layer_4/width_16k/average_l0_11", "gemma_scope"),
        (lambda f: gemma_scope_2(f, parameters()), "resid_post/layer_4_width_16k", "gemma_scope_2"),
        (lambda f: llama_scope(f, parameters()), "sub", "llama_scope"),
        (lambda f: sparsify(f, parameters()), "layers.4", "sparsify"),
        (lambda f: dictionary("AutoEncoder")(f, parameters()), "sub", "dictionary_learning"),
    ],
)
def test_i6_the_format_is_seen_before_the_weights_are_here(tmp_path, loopback, write, at, name):
    commit = publish(loopback, tmp_path, write, at)
    ignore = {"overrides": {"ignore_mismatch": True}}
    _, found = plan(tmp_path, f"hub:org/repo/{at}", revision=commit, **ignore)
    large = ("npz", "safetensors", "pt")
    assert not sum(n for f, n in loopback.sent.items() if f.endswith(large))
    [t] = found["saes"] or found["latents"]
    told = t.record["source"] if found["saes"] else t.record["sae"]
    assert told == {"hub": "org/repo", "folder": at, "revision": commit, "format": name}
    assert bool(found["saes"]) == (name == "dictionary_learning")
    codes = encoded(tmp_path, f"hub:org/repo/{at}", revision=commit, **ignore)
    local = encoded(tmp_path / "local", str(tmp_path / "repo" / at), **ignore)
    assert (codes == local).all() and codes.any()


def test_an_sae_of_the_hub_is_encoded_as_its_folder(tmp_path, loopback):
    commit = publish(loopback, tmp_path, saelens)
    assert_same(encoded(tmp_path, revision=commit), dense(parameters(), rows(3), "standard"))


def test_only_the_files_of_the_format_are_fetched(tmp_path, loopback):
    """Folders on the hub also hold checkpoints and other weights."""
    folder = tmp_path / "repo" / "sub"
    llama_scope(folder, parameters())
    (folder / "checkpoints" / "step_1.safetensors").write_bytes(b"large")
    (folder / "optimizer.pt").write_bytes(b"large")
    commit = loopback.add("org/repo", tmp_path / "repo")
    encoded(tmp_path, revision=commit)
    assert {a.rpartition("/")[2] for a in loopback.requests("/resolve/")} == {
        "hyperparams.json", "final.safetensors",
    }  # fmt: skip


def test_i6_no_sae_there(tmp_path, loopback):
    commit = publish(loopback, tmp_path, lambda f: f.mkdir() or (f / "notes.txt").touch())
    with pytest.raises(
        ConfigError, match=r"saes\.s\.source: hub:org/repo/sub at .*no SAE found: it hol"
    ):
        plan(tmp_path, revision=commit)
    with pytest.raises(
        ConfigError, match=r"holds notes\.txt; expected params\.npz \(gemma_scope\)$"
    ):
        plan(tmp_path, revision=commit, format="gemma_scope")


# -- I7: in the plan, by cause


def test_i7_a_folder_that_the_repository_does_not_have(tmp_path, loopback):
    at = "layer_20/width_16k/average_l0_11"
    commit = publish(loopback, tmp_path, lambda f: gemma_scope(f, parameters()), at)
    with pytest.raises(
        ConfigError,
        match=r"has no folder layer_20/widht_16k/average_l0_11; did you mean 'layer_20/w",
    ):
        plan(tmp_path, "hub:org/repo/layer_20/widht_16k/average_l0_11", revision=commit)


@pytest.mark.parametrize(
    ("write", "at", "message"),
    [
        (
            lambda f: saelens(f, hook_name="blocks.7.hook_mlp_out"),
            "sub",
            r"blocks\.7\.hook_mlp_out",
        ),
        (lambda f: saelens(f, model_name="other"), "sub", "made for the model other"),
        (
            lambda f: gemma_scope_2(f, parameters()),
            "resid_post/layer_5_width",
            r"blocks\.5\.hook_res",
        ),
        (lambda f: sparsify(f, parameters()), "layers.5", r"made for layers\.5"),
        (lambda f: save_saelens(f, parameters(d=12)), "sub", "it encodes width 12, the model's"),
    ],
)
def test_i7_an_sae_of_another_place_is_refused_before_it_is_fetched(
    tmp_path, loopback, write, at, message
):
    commit = publish(loopback, tmp_path, write, at)
    cfg = config(tmp_path, {"s": {"source": f"hub:org/repo/{at}", "revision": commit}})
    cfg = edited(cfg, ["models", "m", "d_model"], 16)
    with pytest.raises(ConfigError, match=rf"saes\.s: .*{message}"):
        targets(cfg, activations(tmp_path, {"a": rows(3)}))


def test_i7_the_layer_of_a_gemma_scope_sae(tmp_path, loopback):
    """It stands in the names of the folders alone."""
    gemma_scope(tmp_path / "sae", parameters())
    files = {
        "layer_20/width_16k/average_l0_11/params.npz": (tmp_path / "sae/params.npz").read_bytes()
    }
    commit = loopback.add("google/gemma-scope-2b-pt-res", files)
    source = "hub:google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_11"
    with pytest.raises(
        ConfigError, match=r"made for blocks\.20\.hook_resid_post .*model gemma-2-2b, not org/tiny"
    ):
        plan(tmp_path, source, revision=commit)


def test_i7_an_architecture_that_is_not_supported(tmp_path, loopback):
    commit = publish(
        loopback, tmp_path, lambda f: save_saelens(f, parameters(), architecture="temporal")
    )
    with pytest.raises(
        ConfigError,
        match=r"saes\.s\.source: hub:org/repo/sub at .*not supported: architecture 'temp",
    ):
        plan(tmp_path, revision=commit)


@pytest.mark.parametrize(
    ("access", "says"), [("gated", "it is gated"), ("private", "not logged in")]
)
def test_i7_a_repository_that_is_closed(tmp_path, loopback, access, says):
    commit = publish(loopback, tmp_path, lambda f: gemma_scope(f, parameters()))
    loopback.repos["org/repo"].access = access
    for acts in (True, False):
        with pytest.raises(ConfigError, match=rf"from the hub:\n  hub:org/repo.*{says}"):
            plan(tmp_path, revision=commit, format="gemma_scope", acts=acts)
    with pytest.raises(ConfigError, match=r"no such repository"):
        plan(tmp_path, "hub:org/none/x", revision=commit, format="gemma_scope")


def test_i7_an_unreachable_hub_is_told_in_the_plan(tmp_path, loopback, caplog):
    commit = publish(loopback, tmp_path, saelens)
    loopback.close()
    with pytest.raises(Unreachable, match=r"now:\n  hub:org/repo at .*ConnectError"):
        plan(tmp_path, revision=commit, format="saelens")
    _, found = plan(tmp_path, revision=commit, format="saelens", acts=False)
    assert found["latents"] and "(a run would end here)" in caplog.text
    with pytest.raises(
        Unreachable, match=r"saes\.s\.format: cannot be seen now, give one of saelens"
    ):
        plan(tmp_path, revision=commit)


def test_i7_many_saes_of_a_silent_hub_wait_once(tmp_path, loopback):
    commit = publish(loopback, tmp_path, saelens)
    loopback.faults.append(Fault("silent", times=99))
    entries = {
        f"s{n}": {"source": f"hub:org/repo/{n}", "revision": commit, "format": "saelens"}
        for n in range(40)
    }
    begun = time.monotonic()
    found = targets(config(tmp_path, entries), activations(tmp_path, {"a": rows(3)}))
    assert len(found["latents"]) == 40 and time.monotonic() - begun < 15


@pytest.mark.parametrize("fault", ["gone", "silent", "offline"])
def test_an_unreachable_hub_is_no_reason_to_skip(tmp_path, loopback, monkeypatch, fault):
    """A tombstone would stay when the network is back."""
    from huggingface_hub import constants

    commit = publish(loopback, tmp_path, saelens)
    cfg, found = plan(tmp_path, revision=commit, on_bad="skip")
    monkeypatch.setattr(asking, "LONGEST_WAIT", 0.5)
    monkeypatch.setattr("actprobe.files.hub.download.TRIES", 0)
    if fault == "gone":
        loopback.close()
    elif fault == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr("actprobe.files.hub.transfer.STALL", 1.0)
        loopback.faults.append(Fault("silent", times=99))
    with pytest.raises(Unreachable, match="hub:org/repo"):
        sae.run(batch(found["latents"]), cfg, 1)
    assert not Path(found["latents"][0].path).exists()


# -- I1, I2, I11


def test_i2_what_is_here_needs_no_hub(tmp_path, loopback, caplog):
    commit = publish(loopback, tmp_path, saelens)
    first = encoded(tmp_path, revision=commit)
    loopback.faults.append(Fault("silent", times=99))
    loopback.asked.clear()
    begun = time.monotonic()
    assert (encoded(tmp_path / "fresh", revision=commit) == first).all()
    assert time.monotonic() - begun < 20 and not loopback.requests() and not caplog.text
    (layout.storage("org/repo") / "trees" / f"{commit}.json").unlink()  # as another tool left it
    plan(tmp_path / "other", revision=commit)
    assert not loopback.requests()


@pytest.mark.parametrize("skip", ["stop", "skip"])
def test_i1_a_flipped_byte_is_named_and_never_skipped(tmp_path, loopback, skip):
    commit = publish(loopback, tmp_path, saelens)
    encoded(tmp_path, revision=commit)
    path = layout.snapshot("org/repo", commit) / "sub" / "sae_weights.safetensors"
    blob, good = path.resolve(), path.read_bytes()
    for at in (-9, 20):  # in the data, in the header
        damaged = bytearray(good)
        damaged[at] ^= 4
        blob.write_bytes(damaged)
        with pytest.raises(
            Damaged, match=rf"{blob} in the local hub cache is damaged: .*rm {blob}"
        ):
            cfg, found = plan(tmp_path / f"{at}", revision=commit, on_bad=skip)
            sae.run(batch(found["latents"]), cfg, 1)
        with pytest.raises(Damaged, match=rf"rm {blob}"):  # the same file, given as a local folder
            encoded(tmp_path / f"local{at}", str(path.parent))
    blob.write_bytes(good[:-5])
    with pytest.raises(Damaged, match=r"bytes, expected .*rm "):
        plan(tmp_path / "short", revision=commit)


@pytest.mark.parametrize("way", ["source", "key", "file"])
def test_i11_a_branch_and_a_folder_as_for_models(tmp_path, loopback, way):
    commit = publish(loopback, tmp_path, saelens, "a/b")
    source, more = {
        "source": ("hub:org/repo/a/b", {}),
        "key": ("hub:org/repo", {"subfolder": "a/b"}),
        "file": ("hub:org/repo/a/b/sae_weights.safetensors", {}),
    }[way]
    _, found = plan(tmp_path, source, **more)
    [t] = found["latents"]
    assert t.record["sae"] == {
        "hub": "org/repo", "folder": "a/b", "revision": commit, "format": "saelens",
    }  # fmt: skip
    assert t.args.sae.asked == "main"
    assert encoded(tmp_path, source, **more).any()
    layout.storage("org/repo").rename(
        tmp_path / "away"
    )  # the key is the same where nothing is seen
    loopback.close()
    _, unseen = plan(tmp_path, source, acts=False, format="saelens", **more)
    assert unseen["latents"][0].key == t.key
    (tmp_path / "away").rename(layout.storage("org/repo"))
    local, below = str(tmp_path / "repo" / "a"), {"subfolder": "b"}
    assert encoded(tmp_path / "local", local, **below).any()


def test_i3_a_branch_works_offline_once_it_was_seen(tmp_path, loopback, caplog):
    commit = publish(loopback, tmp_path, saelens)
    first = encoded(tmp_path)
    loopback.close()
    _, found = plan(tmp_path)
    assert found["latents"][0].spec.sae.revision == commit
    assert f"saes.s.revision: hub:org/repo at revision 'main': {loopback.url} cannot" in caplog.text
    assert (encoded(tmp_path) == first).all()


def test_a_compressed_archive_from_the_hub_is_converted_by_the_next_run(tmp_path, loopback):
    """It can only be seen to be compressed once it is here."""
    p = parameters()

    def write(folder):
        gemma_scope(folder, p)
        with np.load(folder / "params.npz") as z:
            np.savez_compressed(folder / "params.npz", **dict(z))

    commit = publish(loopback, tmp_path, write)
    with pytest.raises(ActprobeError, match=r"params\.npz: compressed, .* run again"):
        encoded(tmp_path, revision=commit)
    told = gemma_scope(tmp_path / "told", p)
    assert_same(encoded(tmp_path, revision=commit), dense(p, rows(3), **told))


def test_the_run_of_a_sparsify_sae_names_its_model(tmp_path, loopback):
    def write(folder):
        sparsify(folder, parameters())
        write_json(folder.parent / "config.json", {"model": "org/other"})

    commit = publish(loopback, tmp_path, write, "run/layers.4")
    with pytest.raises(ConfigError, match="made for the model org/other, not org/tiny"):
        plan(tmp_path, "hub:org/repo/run/layers.4", revision=commit)


def test_estimates_read_what_is_here(tmp_path, loopback):
    commit = publish(loopback, tmp_path, saelens)
    cfg, found = plan(tmp_path, revision=commit)
    place = found["latents"][0].args.sae
    assert shapes.sae(cfg, "s", place).latents == 16 * shapes.D_MODEL
    encoded(tmp_path, revision=commit)
    assert shapes.sae(cfg, "s", place).latents == 100


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "google/gemma-scope-2b-pt-res/layer_20",
            "source: hub:google/gemma-scope-2b-pt-res/layer_20",
        ),
        ("https://huggingface.co/o/r/tree/main/x", "source: hub:o/r/x and revision: main"),
    ],
)
def test_h_a_source_that_names_the_hub_without_saying_so(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"saes\.s\.source: .*for the hub write {words}$"):
        plan(tmp_path, source)


def test_what_an_sae_is_made_for_is_told_by_the_name_of_its_repository(tmp_path):
    from actprobe.models import families
    from actprobe.models.described import described
    from actprobe.sae.checks import model_names

    assert model_names("m", "hub:google/gemma-2-9b/sub") == ["google/gemma-2-9b", "m"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_text(json.dumps({"hidden_size": 24}))
    models = {
        "m": {"source": str(tmp_path), "subfolder": "sub"},
        "none": {"source": "hub:org/none"},
    }
    cfg = resolve({"experiment": "e", "models": models})
    assert families.d_model(described(cfg, cfg.models["m"])) == 24
    assert described(cfg, cfg.models["none"]) == {}


def test_no_place_is_opened_with_a_token_in_the_log(tmp_path, loopback, caplog):
    commit = publish(loopback, tmp_path, saelens)
    with caplog.at_level(logging.INFO):
        encoded(tmp_path, revision=commit)
    assert "http://" not in caplog.text
    assert (
        sources.open_place(plan(tmp_path, revision=commit)[1]["latents"][0].args.sae).d_sae == 100
    )
