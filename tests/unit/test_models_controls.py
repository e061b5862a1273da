"""Random weights as a control, and one model at many points of its training."""

# ruff: noqa: F401, F811

import numpy as np
import pytest
import torch
import yaml
from configs import edited
from hub_server import loopback
from models_tiny import (
    by_name,
    make_config,
    model_entry,
    run,
    save_model,
    targets,
    tiny_run,
    write_texts,
)

from actprobe import config as configuration
from actprobe import models
from actprobe.base.errors import ConfigError

DEEP = {"sites": ["resid_post.0", "resid_post.3"], "positions": ["last"]}


def read(found):
    return {n: models.load_activations(t.path) for n, t in found.items()}


def test_random_weights_are_of_the_seed_alone(tmp_path):
    trained = tiny_run(tmp_path, wanted=DEEP)
    first = tiny_run(tmp_path, wanted=DEEP, weights="random")
    other = tiny_run(tmp_path, wanted=DEEP, weights="random", seed=1)
    keys = [{t.key for t in found.values()} for found in (trained, first, other)]
    assert not keys[0] & keys[1] and not keys[1] & keys[2] and not keys[0] & keys[2]
    a, b = read(first), read(other)
    assert np.isfinite(a["resid_post.3.last"]).all()
    assert not np.allclose(a["resid_post.3.last"], b["resid_post.3.last"])
    assert not np.allclose(a["resid_post.3.last"], read(trained)["resid_post.3.last"])


def test_random_weights_do_not_depend_on_what_else_is_read(tmp_path):
    together = read(tiny_run(tmp_path / "a", wanted=DEEP, weights="random"))
    shallow = {"sites": ["resid_post.0"], "positions": ["last"]}
    before = torch.get_rng_state()
    alone = read(tiny_run(tmp_path / "b", wanted=shallow, weights="random"))
    np.testing.assert_array_equal(together["resid_post.0.last"], alone["resid_post.0.last"])
    assert torch.equal(before, torch.get_rng_state())


def test_random_weights_do_not_depend_on_the_weights_of_the_source(tmp_path):
    a = tiny_run(tmp_path, wanted=DEEP, weights="random")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not even weights")
    b = tiny_run(tmp_path, wanted=DEEP, weights="random")
    assert [t.key for t in a.values()] == [t.key for t in b.values()]
    c = tiny_run(tmp_path, wanted=DEEP, weights="random", seed=7)
    assert read(c)["resid_post.0.last"].shape == (9, 32)


def test_a_seed_means_nothing_for_trained_weights(tmp_path):
    save_model("llama", tmp_path / "model")
    config = make_config(tmp_path, model_entry(tmp_path / "model"), DEEP)
    texts = write_texts(tmp_path)
    a = [t.key for t in targets(config, texts)]
    config = edited(config, ["models", "m", "seed"], 3)
    assert a == [t.key for t in targets(config, texts)]


def test_random_weights_of_the_hub_are_not_fetched(tmp_path, loopback):
    save_model("llama", tmp_path / "model")
    commit = loopback.add("org/name", tmp_path / "model")
    entry = model_entry("hub:org/name", revision=commit, weights="random")
    found = by_name(run(make_config(tmp_path / "c", entry, DEEP), write_texts(tmp_path / "c")))
    assert not any("safetensors" in asked for asked in loopback.asked if "resolve" in asked)
    local = read(tiny_run(tmp_path, wanted=DEEP, weights="random"))
    np.testing.assert_array_equal(read(found)["resid_post.3.last"], local["resid_post.3.last"])


def test_random_weights_are_not_spread_over_devices(tmp_path):
    with pytest.raises(ConfigError, match=r"models\.m: device_map .*weights: random reads none"):
        tiny_run(tmp_path, wanted=DEEP, weights="random", device_map="auto")


# -- checkpoints


def resolved(**changes):
    text = """
    experiment: e
    datasets: []
    models:
      pythia: {source: "hub:org/pythia", revision: [step1, step20]}
      other: {source: "hub:org/other"}
    activations:
      - {model: pythia, sites: [resid_post.1], positions: [last]}
      - {model: other, sites: [resid_post.1], positions: [last]}
    probes:
      - {protocol: saeprobes-0.4.2, sources: ["pythia/*.last", "other/*", "*"]}
    """
    config = yaml.safe_load(text)
    for path, value in changes.items():
        *above, last = path.split(".")
        node = config
        for key in above:
            node = node[key]
        node[last] = value
    return configuration.resolve(config)


def test_a_list_of_revisions_is_a_model_of_each():
    config = resolved()
    assert list(config["models"]) == ["pythia@step1", "pythia@step20", "other"]
    assert config["models"]["pythia@step20"]["revision"] == "step20"
    assert [e["model"] for e in config["activations"]] == ["pythia@step1", "pythia@step20", "other"]
    assert config["probes"][0]["sources"] == [
        "pythia@step1/*.last", "pythia@step20/*.last", "other/*", "*",
    ]  # fmt: skip


def test_what_one_checkpoint_is_called():
    config = resolved(**{"models.pythia.revision": ["refs/pr/1", 1000]})
    assert list(config["models"])[:2] == ["pythia@refs_pr_1", "pythia@1000"]
    with pytest.raises(
        ConfigError, match=r"models\.pythia\.revision: 'a/b' would be called pythia@a_b"
    ):
        resolved(**{"models.pythia.revision": ["a_b", "a/b"]})


def test_an_sae_reads_one_checkpoint():
    saes = {"s": {"model": "pythia", "site": "resid_post.1", "source": "x"}}
    with pytest.raises(
        ConfigError, match=r"saes\.s\.model: pythia has 2 checkpoints, .*pythia@step1, py"
    ):
        resolved(saes=saes)


def test_checkpoints_in_folders(tmp_path):
    folders = {"models.pythia.source": str(tmp_path / "checkpoint-{revision}")}
    config = resolved(**folders)
    assert config["models"]["pythia@step1"]["source"] == str(tmp_path / "checkpoint-step1")
    assert config["models"]["pythia@step1"]["revision"] is None
    with pytest.raises(ConfigError, match=r"for folders of your own write \{revision\} in source"):
        resolved(**{"models.pythia.source": str(tmp_path)})


def test_checkpoints_give_the_numbers_of_each(tmp_path, loopback):
    save_model("llama", tmp_path / "a")
    save_model("qwen2", tmp_path / "b")
    for branch, folder in (("step1", "a"), ("step20", "b")):
        loopback.add("org/pythia", tmp_path / folder, branch=branch)
    full = configuration.resolve(
        {
            "experiment": "e", "datasets": [], "cache_dir": str(tmp_path / "cache"),
            "models": {"p": {"source": "hub:org/pythia", "revision": ["step1", "step20"],
                             "device": "cpu"}},
            "activations": [{"model": "p", **DEEP}],
        }
    )  # fmt: skip
    found = run(full, write_texts(tmp_path / "cache"))
    assert {t.args.source for t in found if t.args.site == "resid_post.3"} == {
        "p@step1/resid_post.3.last", "p@step20/resid_post.3.last",
    }  # fmt: skip
    for t in found:
        folder = tmp_path / {"p@step1": "a", "p@step20": "b"}[t.args.model]
        entry = model_entry(folder)
        alone = by_name(run(make_config(tmp_path / "x", entry, DEEP), write_texts(tmp_path / "x")))
        np.testing.assert_array_equal(
            models.load_activations(t.path), read(alone)[f"{t.args.site}.last"]
        )
