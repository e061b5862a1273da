"""Differences of two models' activations on the same rows."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from configs import edited
from models_tiny import make_config, model_entry, save_model, write_texts

from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import plan, store
from actprobe.experiment import shapes
from actprobe.experiment import targets as experiment
from actprobe.models import differences
from actprobe.models.prepared import READ_FACTS
from actprobe.models.records import DifferenceArgs, DifferenceSpec

WANTED = {"sites": ["resid_post.1", "resid_post.-1"], "positions": ["last", "mean", "tokens"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


def config_of(tmp_path, own, other, wanted=WANTED):
    """A config with the models m and n, and m minus n."""
    config = make_config(tmp_path, own, {**wanted, "minus": "n"})
    config = edited(config, ["models", "n"], other)
    return config


def targets(config, *texts):
    memo = keys.DigestMemo(config["cache_dir"])
    known = {"texts": list(texts)}
    known["activations"] = models.targets(config, known, memo)
    return [*known["activations"], *differences.targets(config, known, memo)]


def run(config, *texts):
    """Make what is missing; the differences by site and position, and all by source."""
    found = targets(config, *texts)
    made = plan.make(config, found, [t.path for t in found])
    for batch in made.in_order():
        experiment.run(batch, config, 1)
    return {t.args.source: t for t in found}


def values(t):
    return models.load_activations(t.path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_difference_is_one_minus_the_other(tmp_path, folder, dtype):
    config = config_of(
        tmp_path,
        model_entry(folder, dtype=dtype),
        model_entry(folder, dtype=dtype, weights="random"),
    )
    found = run(config, write_texts(tmp_path))
    for place in ("resid_post.1.last", "resid_post.3.mean", "resid_post.3.tokens"):
        expected = values(found[f"m/{place}"]) - values(found[f"n/{place}"])
        np.testing.assert_array_equal(values(found[f"m-minus-n/{place}"]), expected)
    t = found["m-minus-n/resid_post.3.tokens"]
    with (
        models.open_activations(t.path) as a,
        models.open_activations(found["m/resid_post.3.tokens"].path) as b,
    ):
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        np.testing.assert_array_equal(a.n_tokens, b.n_tokens)
    header, own = store.verify(t.path), store.read_header(found["m/resid_post.3.tokens"].path)
    assert {k: header["facts"][k] for k in READ_FACTS if k in own["facts"]} == {
        k: own["facts"][k] for k in READ_FACTS if k in own["facts"]
    }
    assert "has_bos" in header["facts"]
    assert {k[:12] for k in header["from"]} == {
        store.file_key(found[f"{m}/resid_post.3.tokens"].path) for m in "mn"
    }


def test_a_model_minus_a_copy_of_it_is_zero(tmp_path, folder):
    """Under another `max_length`, which gives it a key of its own."""
    config = config_of(tmp_path, model_entry(folder), model_entry(folder, max_length=200))
    found = run(config, write_texts(tmp_path))
    assert not values(found["m-minus-n/resid_post.3.mean"]).any()


def test_models_that_read_other_tokens(tmp_path, folder):
    bare = model_entry(folder, add_special_tokens=False)
    config = config_of(tmp_path, model_entry(folder), bare, {**WANTED, "positions": ["last"]})
    with pytest.raises(
        ActprobeError, match=r"m-minus-n/tiny/.*: the two models did not read the same tok"
    ):
        run(config, write_texts(tmp_path))
    config = edited(config, ["on_bad_dataset"], "skip")
    found = run(config, write_texts(tmp_path))
    with pytest.raises(BadInput, match="did not read the same tokens"):
        values(found["m-minus-n/resid_post.1.last"])
    assert values(found["m/resid_post.1.last"]).shape == (9, 32)


def test_models_of_other_sizes(tmp_path, folder):
    other = save_model("gpt2", tmp_path / "gpt2")
    config = transformers.AutoConfig.from_pretrained(other)
    config.n_layer = 2
    transformers.AutoModel.from_config(config).save_pretrained(other)
    with pytest.raises(
        ConfigError, match=r"activations\[0\]\.minus: m has the site resid_post\.3, and n"
    ):
        targets(
            config_of(
                tmp_path, model_entry(folder), model_entry(other),
                {**WANTED, "sites": ["resid_post.-1"]},
            ),
            write_texts(tmp_path),
        )  # fmt: skip


def test_names_that_mean_nothing(tmp_path, folder):
    entry = model_entry(folder)
    config = make_config(tmp_path, entry, {**WANTED, "minus": "m"})
    with pytest.raises(ConfigError, match="m minus itself is nothing"):
        targets(config, write_texts(tmp_path))
    config = make_config(tmp_path, entry, {**WANTED, "minus": "other"})
    with pytest.raises(ConfigError, match=r"activations\[0\]: unknown model 'other'"):
        targets(config, write_texts(tmp_path))


def test_what_is_in_the_key(tmp_path, folder):
    def key(**changes):
        other = model_entry(folder, weights="random", **changes)
        found = targets(config_of(tmp_path, model_entry(folder), other), write_texts(tmp_path))
        return found[-1].key

    assert key() == key(device="auto")
    assert len({key(), key(seed=1), key(max_length=20)}) == 3


def test_shapes_are_those_of_the_minuend(tmp_path, folder):
    config = config_of(tmp_path, model_entry(folder), model_entry(folder))
    assert shapes.model(config, "m-minus-n").d == 32


def test_an_adapter_untouched_and_trained(tmp_path, folder):
    """The difference is zero for the first, and not for the second."""
    pytest.importorskip("peft")
    from test_models_adapters import given, trained

    for steps, changed in ((0, False), (10, True)):
        adapter = trained(tmp_path / f"a{steps}", folder, steps)
        config = config_of(
            tmp_path, model_entry(folder, adapter=given(adapter)), model_entry(folder)
        )
        found = run(config, write_texts(tmp_path))
        x = values(found["m-minus-n/resid_post.3.mean"])
        assert x.any(axis=1).all() == changed and x.any() == changed


def test_golden(tmp_path):
    """Changed output needs a new stage version, or old files would pass for new ones."""
    from actprobe.models.subtract import run as subtract

    paths = {}
    for n, role in enumerate(("of", "minus")):
        t = plan.target(tmp_path, "activations", 1, role, {"n": n}, loader="m", item="d")
        x = np.sin(np.arange(12, dtype=np.float64) * (n + 1)).reshape(3, 4).astype(np.float32)
        arrays = {"x": x, "n_tokens": np.array([3, 4, 5], np.int32)}
        facts = {"tokens_sha256": "same", "n_rows": 3}
        part = store.write_h5(t.path, arrays, t.record, facts, {"x": {"dtype": "float32"}})
        store.publish([t.path], [part])
        paths[role] = t.path
    t = plan.target(
        tmp_path, differences.STAGE, differences.VERSION, "a-minus-b",
        DifferenceSpec(of="a", minus="b", position="last"), loader="a-minus-b", item="d",
        args=DifferenceArgs(source="", model="", site="", position="last", texts="", **paths),
    )  # fmt: skip
    made = plan.make({"cache_dir": str(tmp_path)}, [t], [t.path])
    subtract(made.batches[0], {"on_bad_dataset": "stop"}, 1)
    digest = keys.hashlib.sha256(models.load_activations(t.path).tobytes()).hexdigest()
    found = {"version": differences.VERSION, "digest": digest[:16]}
    golden = json.loads((Path(__file__).parents[1] / "golden" / "differences.json").read_text())
    assert found == golden, "differences changed: raise VERSION, and put this into the golden file"
