"""Imports: caches of other tools come in checked, in the order of the dataset."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import contrastive_inputs as inputs
import interchange_caches as caches
import numpy as np
import pytest
import torch
from configs import edited
from safetensors.torch import save_file

from actprobe import texts
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.models import load_activations, open_activations

N = len(inputs.PAIRS)
TEMPLATE = "{text}\n\nAnswer:\n\n {answer}"


def setup(folder, datasets=("pairs", "rows"), /, **entry):
    """A config with one import from `{folder}/dump`, and its texts."""
    made = {
        "pairs": inputs.dataset(folder, "pairs", inputs.PAIRS, template=TEMPLATE),
        "rows": inputs.dataset(folder, "rows", inputs.ROWS),
    }
    usual = {"folder": str(folder / "dump"), "model": "llama", "hook": "resid_post"}
    config = inputs.resolve(
        folder,
        list(made.values()),
        imports={"dump": {**usual, "layout": "v1", "datasets": list(datasets), **entry}},
    )
    return config, inputs.make_texts(config)


def write_pairs(dump: Path, test=None, deploy=None, metadata=None, **info):
    metadata = caches.pair_metadata(inputs.PAIRS) if metadata is None else metadata
    caches.describe(dump, metadata, activation_shape=[1, 4], **info)
    test = caches.tensor(N, seed=1)[:, None] if test is None else test
    deploy = caches.tensor(N, seed=2)[:, None] if deploy is None else deploy
    caches.save(dump, 3, test_activations=test, deploy_activations=deploy)
    return caches.values(test), caches.values(deploy)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_stacked_pairs_land_in_the_rows_of_their_answers(tmp_path, dtype):
    stacked = [caches.tensor(N, seed=s, dtype=dtype)[:, None] for s in (1, 2)]
    test, deploy = write_pairs(tmp_path / "dump", *stacked)
    config, made = setup(tmp_path, ["pairs"])
    (t,) = caches.run(config, made)
    x, labels = load_activations(t.path), inputs.labels(made[0])
    np.testing.assert_array_equal(x[labels == 1], test)
    np.testing.assert_array_equal(x[labels == 0], deploy)
    with store.open_h5(t.path) as f:
        kept = f["x"].attrs["dtype"]
        assert kept == str(dtype).removeprefix("torch.") and f["n_tokens"][0] == -1
    facts = store.verify(t.path)["facts"]
    assert facts["provenance"] == "imported" and facts["revision"] == "unknown"
    assert t.args["source"] == "llama/resid_post.3.last"
    assert t.path.startswith(f"{config['cache_dir']}/activations/llama/pairs/resid_post.3.last.")


@pytest.mark.parametrize("shape", [(24, 1, 4), (24, 4)])
def test_stacked_validation_rows_stay_in_order(tmp_path, shape):
    x = caches.tensor(24).reshape(shape)
    caches.describe(tmp_path / "dump", caches.row_metadata(inputs.ROWS), activation_shape=[1, 4])
    caches.save(tmp_path / "dump", 3, activations=x)
    caches.save(tmp_path / "dump", 11, activations=x + 1)
    config, made = setup(tmp_path, ["rows"], hook="resid_pre")
    found = {t.args["site"]: load_activations(t.path) for t in caches.run(config, made)}
    assert set(found) == {"resid_pre.3", "resid_pre.11"}
    np.testing.assert_array_equal(found["resid_pre.3"], caches.values(x))


def single(dump, batch_axis=True, d=4):
    """A v2 cache of the validation rows; returns the examples."""
    examples = [caches.tensor(2 + i % 5, d, seed=i) for i in range(24)]
    caches.describe(dump, caches.row_metadata(inputs.ROWS), storage_format="individual")
    for i, x in enumerate(examples):
        caches.save(dump, 3, **{str(i): x[None] if batch_axis else x})
    return [caches.values(x) for x in examples]


@pytest.mark.parametrize("batch_axis", [True, False])
def test_single_examples_become_tokens(tmp_path, batch_axis):
    examples = single(tmp_path / "dump", batch_axis)
    config, made = setup(tmp_path, ["rows"], layout="v2")
    (t,) = caches.run(config, made)
    with open_activations(t.path) as a:
        assert a.offsets is not None and a.n_tokens.tolist() == [len(x) for x in examples]
        np.testing.assert_array_equal(a[:], np.concatenate(examples))
        assert np.diff(a.offsets).tolist() == a.n_tokens.tolist() and a.token_ids[0] == -1


@pytest.mark.parametrize(("position", "expected"), [("last", -1), ("mean", None)])
def test_single_examples_become_one_vector(tmp_path, position, expected):
    examples = single(tmp_path / "dump")
    config, made = setup(tmp_path, ["rows"], layout="v2", position=position)
    (t,) = caches.run(config, made)
    want = [x.mean(axis=0, dtype=np.float64) if expected is None else x[-1] for x in examples]
    np.testing.assert_allclose(load_activations(t.path), want, rtol=1e-6)
    with open_activations(t.path) as a:
        assert a.offsets is None and a.n_tokens.tolist() == [len(x) for x in examples]


def test_single_examples_of_pairs(tmp_path):
    dump, metadata = tmp_path / "dump", caches.pair_metadata(inputs.PAIRS)
    caches.describe(dump, metadata, storage_format="individual")
    rows = {
        part: [caches.tensor(2, seed=i + s) for i in range(N)]
        for part, s in (("test", 0), ("deploy", 99))
    }
    for part, examples in rows.items():
        caches.save(dump, 3, **{f"{part}__{i}": x[None] for i, x in enumerate(examples)})
    config, made = setup(tmp_path, ["pairs"], layout="v2", position="last")
    (t,) = caches.run(config, made)
    x, labels = load_activations(t.path), inputs.labels(made[0])
    np.testing.assert_array_equal(x[labels == 1], [caches.values(e)[-1] for e in rows["test"]])
    np.testing.assert_array_equal(x[labels == 0], [caches.values(e)[-1] for e in rows["deploy"]])


def test_an_interrupted_import_ends_with_the_same_bytes(tmp_path, monkeypatch):
    from actprobe.imports import run as stage

    single(tmp_path / "dump")
    config, made = setup(tmp_path, ["rows"], layout="v2")
    (t,) = caches.run(config, made)
    whole = Path(t.path).read_bytes()
    Path(t.path).unlink()
    checked, calls = stage._checked, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return checked(*args)

    monkeypatch.setattr(stage, "_checked", failing)
    with pytest.raises(KeyboardInterrupt):
        caches.run(config, made)
    monkeypatch.setattr(stage, "_checked", checked)
    caches.run(config, made)
    assert Path(t.path).read_bytes() == whole


def test_files_of_the_benchmark_come_in_by_name(tmp_path):
    dump = tmp_path / "dump"
    dump.mkdir()
    x = {"rows": caches.tensor(24), "pairs": caches.tensor(2 * N)}
    for name, value in x.items():
        for layer in (2, 10):
            torch.save(value + layer, dump / f"{name}_blocks.{layer}.hook_resid_post.pt")
        torch.save(value, dump / f"{name}_blocks.2.attn.hook_z.pt")
        torch.save(value, dump / f"{name}_hook_embed.pt")
    torch.save(x["rows"], dump / "unrelated_blocks.2.hook_resid_post.pt")
    config, made = setup(tmp_path, ["*"], layout="saeprobes", hook=None)
    found = {(t.item, t.args["site"]): t for t in caches.run(config, made)}
    sites = ("resid_post.2", "resid_post.10", "z.2", "embed")
    assert set(found) == {(n, s) for n in x for s in sites}
    np.testing.assert_array_equal(
        load_activations(found["rows", "resid_post.10"].path), caches.values(x["rows"] + 10)
    )


def test_safetensors_of_any_name_come_in(tmp_path):
    from safetensors.torch import save_file

    dump = tmp_path / "dump"
    (dump / "deep").mkdir(parents=True)
    tensors = {"acts": caches.tensor(24), "n_tokens": torch.arange(24, dtype=torch.int32)}
    save_file(tensors, dump / "deep" / "rows-L7.safetensors")
    config, made = setup(
        tmp_path, ["rows"], layout="safetensors", files="deep/{dataset}-L{layer}.safetensors",
        array="acts",
    )  # fmt: skip
    (t,) = caches.run(config, made)
    assert t.args["source"] == "llama/resid_post.7.last"
    with open_activations(t.path) as a:
        np.testing.assert_array_equal(a[:], caches.values(tensors["acts"]))
        assert a.n_tokens.tolist() == list(range(24))


def test_a_dataset_without_activations_stops_or_is_skipped_with_its_reason(tmp_path):
    dump = tmp_path / "dump"
    dump.mkdir()
    torch.save(caches.tensor(24), dump / "rows_blocks.2.hook_resid_post.pt")
    config, made = setup(tmp_path, ["*"], layout="saeprobes")
    with pytest.raises(ConfigError, match=r"imports.dump: no activations of pairs"):
        caches.run(config, made)
    config = edited(config, ["on_bad_dataset"], "skip")
    good, bad = sorted(caches.run(config, made), key=lambda t: t.item == "pairs")
    assert load_activations(good.path).shape == (24, 4)
    with pytest.raises(BadInput, match=r"imports.dump: no activations of pairs at resid_post.2"):
        load_activations(bad.path)


def test_a_leaky_validation_cache_is_refused(tmp_path):
    """Each row was read once after "(A)" and once after "(B)", and its label chooses which."""
    rows = [{"question": r["question"], "positive": "(A)", "negative": "(B)"} for r in inputs.PAIRS]
    metadata = caches.pair_metadata(rows)
    for m, r in zip(metadata, rows, strict=True):
        m["question"] = r["question"]
    write_pairs(tmp_path / "dump", metadata=metadata)
    config, made = setup(tmp_path, ["pairs"])
    with pytest.raises(ActprobeError, match="leaky validation cache"):
        caches.run(config, made)


def wrong_order(dump):
    write_pairs(dump, metadata=caches.pair_metadata(inputs.PAIRS[::-1]))


def wrong_answer(dump):
    metadata = caches.pair_metadata(inputs.PAIRS)
    metadata[5]["test_answer"] = "(C)"
    write_pairs(dump, metadata=metadata)


def not_finite(dump):
    x = caches.tensor(N)
    x[7, 1] = float("nan")
    write_pairs(dump, x)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (wrong_order, r"metadata.json: row 0 is .* but dataset pairs has"),
        (wrong_answer, r"row 5 is .* with test_answer '\(C\)'"),
        (not_finite, r"test_activations.pt: row 7 holds NaN"),
        (lambda d: write_pairs(d, caches.tensor(N - 1)), r"19 rows, but dataset pairs has 20"),
        (lambda d: write_pairs(d, caches.tensor(N, 5)), r"width 4 bfloat16, .* has 5 bfloat16"),
        (
            lambda d: write_pairs(d, caches.tensor(N, dtype=torch.float32)),
            r"width 4 bfloat16, .* has 4 float32",
        ),
        (lambda d: write_pairs(d, torch.zeros(N, 2, 4)), r"expected \[rows, d\] or \[rows, 1, d\]"),
        (lambda d: write_pairs(d, torch.zeros(N, 4, dtype=torch.long)), "int64; expected floats"),
        (lambda d: write_pairs(d, num_examples=7), r"layer_info.json: 7 examples, .* has 20"),
        (lambda d: write_pairs(d, *[caches.tensor(N, 6)] * 2), "activations of width 4, the files"),
        (lambda d: write_pairs(d, metadata=[{}] * 3), r"metadata.json: 3 examples, .* has 20"),
    ],
)
def test_what_does_not_fit_the_dataset_is_named(tmp_path, write, words):
    write(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"])
    with pytest.raises(ActprobeError, match=words):
        caches.run(config, made)


def test_single_examples_of_other_widths_are_named(tmp_path):
    single(tmp_path / "dump")
    caches.save(tmp_path / "dump", 3, **{"9": caches.tensor(2, 5)[None]})
    config, made = setup(tmp_path, ["rows"], layout="v2")
    with pytest.raises(ActprobeError, match=r"9.pt: width and dtype \(5, 'bfloat16'\)"):
        caches.run(config, made)


def test_validation_rows_are_compared_with_the_dataset(tmp_path):
    metadata = caches.row_metadata(inputs.ROWS)
    metadata[4]["type"] = "deployment"
    caches.describe(tmp_path / "dump", metadata)
    caches.save(tmp_path / "dump", 3, activations=caches.tensor(24))
    config, made = setup(tmp_path, ["rows"])
    with pytest.raises(ActprobeError, match="row 4 is of type 'deployment', but in dataset rows"):
        caches.run(config, made)


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path(tmp_path / "ran"),))

    write_pairs(tmp_path / "dump")
    torch.save(Evil(), tmp_path / "dump" / "layer_3" / "test_activations.pt", pickle_module=pickle)
    config, made = setup(tmp_path, ["pairs"])
    with pytest.raises(ActprobeError, match="refused"):
        caches.run(config, made)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"hook": None}, "imports.dump.hook: layout v1 does not say"),
        ({"layout": "v2"}, "layer_info.json is of layout v1, not v2"),
        ({"datasets": ["pairs", "rows"]}, "layout v1 takes one dataset"),
        ({"datasets": ["pear"]}, "no dataset matches 'pear'"),
        ({"folder": "/nowhere"}, "/nowhere is not a folder"),
        ({"layout": "saeprobes"}, "no file of these datasets"),
        ({"layout": "safetensors", "files": "{name}.safetensors"}, "unknown {name}"),
    ],
)
def test_a_config_that_does_not_fit_the_folder_is_refused_at_the_door(tmp_path, entry, words):
    write_pairs(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"], **entry)
    with pytest.raises(ConfigError, match=words):
        caches.targets(config, made)


def test_a_gap_among_the_examples_is_named(tmp_path):
    single(tmp_path / "dump")
    (tmp_path / "dump" / "layer_3" / "5.pt").unlink()
    config, made = setup(tmp_path, ["rows"], layout="v2")
    with pytest.raises(ConfigError, match=r"layer_3: no file 5.pt"):
        caches.targets(config, made)


def test_the_key_holds_content_hook_and_rows(tmp_path):
    write_pairs(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"])
    (before,) = caches.targets(config, made)
    config = edited(config, ["imports", "dump", "hook"], "resid_pre")
    (other_hook,) = caches.targets(config, made)
    config = edited(config, ["imports", "dump", "hook"], "resid_post")
    write_pairs(tmp_path / "dump", caches.tensor(N, seed=5)[:, None])
    (changed,) = caches.targets(config, made)
    assert len({before.key, other_hook.key, changed.key}) == 3


def test_a_file_that_changed_after_planning_is_not_taken(tmp_path, monkeypatch):
    write_pairs(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"])
    monkeypatch.setattr("actprobe.imports.run.identity", lambda *_: "0" * 64)
    with pytest.raises(ActprobeError, match="was changed after the plan was made"):
        caches.run(config, made)


def test_a_source_comes_from_one_place_only(tmp_path):
    from actprobe import exchange as interchange

    write_pairs(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"])
    (t,) = caches.targets(config, made)
    memo = keys.DigestMemo(config["cache_dir"])
    with pytest.raises(ConfigError, match=r"llama/resid_post.3.last of pairs comes from elsewhere"):
        interchange.targets(config, {"texts": made, "activations": [t]}, memo)


def test_imported_activations_are_read_by_contrastive_probes(tmp_path):
    test, deploy = write_pairs(tmp_path / "dump")
    config, made = setup(tmp_path, ["pairs"])
    found = caches.run(config, made)
    rows = inputs.activations(
        config, made[1], inputs.separable(inputs.labels(made[1]), d=4), "resid_post.3",
        model="llama",
    )  # fmt: skip
    config = edited(
        config, ["probes"], inputs.resolve(tmp_path, [], probes=[inputs.ENTRY])["probes"]
    )
    made_targets = inputs.run(config, {"texts": made, "activations": [*found, rows]})
    d = inputs.applied(made_targets)["mean_difference"]
    np.testing.assert_allclose(d.direction, test.mean(0) - deploy.mean(0), atol=1e-6)


def test_golden(tmp_path):
    from actprobe.exchange import VERSION

    write_pairs(tmp_path / "dump", *[torch.arange(4.0 * N).reshape(N, 1, 4) * s for s in (1, -1)])
    config, made = setup(tmp_path, ["pairs"])
    (t,) = caches.run(config, made)
    x = load_activations(t.path)
    golden = json.loads((Path(__file__).parents[1] / "golden" / "imports.json").read_text())
    got = {"version": VERSION, "digest": keys.hashlib.sha256(x.tobytes()).hexdigest()[:16]}
    assert got == golden, (
        "imports give another output: raise VERSION in interchange/targets.py, then put what was "
        "found here into tests/golden/imports.json"
    )
    assert texts.load(t.args["texts"]).label[0] == (x[0, 0] >= 0)


# --- A8: names that say more than they should


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["rows_blocks.4.hook_resid_post.pt", "rows_blocks--4--hook_resid_post.pt"], None),
        (["rows/resid_post.4.pt", "rows/resid_post.04.pt"], "{dataset}/{site}.pt"),
        (["rows/resid_post_4.pt", "rows/resid_post_04.pt"], "{dataset}/{kind}_{layer}.pt"),
    ],
)
def test_a8_two_files_that_hold_the_same_are_named(tmp_path, names, pattern):
    for i, name in enumerate(names):
        (tmp_path / "dump" / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(caches.tensor(24, seed=i), tmp_path / "dump" / name)
    config, made = setup(tmp_path, ["rows"], layout="saeprobes", files=pattern, hook=None)
    with pytest.raises(ConfigError, match=r"both hold resid_post\.4 \(last\) of rows") as error:
        caches.run(config, made)
    assert all(name in str(error.value) for name in names)


def test_a8_what_follows_a_position_is_no_part_of_it(tmp_path):
    (tmp_path / "dump" / "rows").mkdir(parents=True)
    for name in ("resid_post.4.last.safetensors", "resid_post.4.last.grad.safetensors"):
        save_file({"x": caches.tensor(24)}, tmp_path / "dump" / "rows" / name)
    config, made = setup(tmp_path, ["rows"], layout="safetensors", hook=None)
    assert [t.args["source"] for t in caches.run(config, made)] == ["llama/resid_post.4.last"]


# --- JSON of somebody else


HOSTILE = ["[" * 100_000, "[]", "3", '"text"', "{", "null", '{"num_examples": "many"}']


@pytest.mark.parametrize("content", HOSTILE)
def test_a_layer_info_that_makes_no_sense_is_named(tmp_path, content):
    write_pairs(tmp_path / "dump")
    (tmp_path / "dump" / "layer_info.json").write_text(content)
    config, made = setup(tmp_path, ["pairs"])
    with pytest.raises(ActprobeError, match=r"layer_info\.json"):
        caches.run(config, made)


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "{}", "[3]", '[{"question": 3}]', '[{"question": "q", "test_answer": null}]'],
)
def test_metadata_that_make_no_sense_are_named(tmp_path, content):
    write_pairs(tmp_path / "dump")
    (tmp_path / "dump" / "metadata.json").write_text(content)
    config, made = setup(tmp_path, ["pairs"])
    with pytest.raises(ActprobeError, match=r"metadata\.json"):
        caches.run(config, made)


@pytest.mark.parametrize("shapes", [3, "text", {"a": 1}, [[1, 2, "d"]], [[]], [None]])
def test_sample_shapes_of_any_kind(tmp_path, shapes):
    single(tmp_path / "dump")
    info = tmp_path / "dump" / "layer_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "sample_shapes": shapes}))
    config, made = setup(tmp_path, ["rows"], layout="v2")
    if shapes == [[1, 2, "d"]]:
        with pytest.raises(ActprobeError, match="activations of width d, the files have 4"):
            caches.run(config, made)
    else:
        caches.run(config, made)


# --- F: files as users have them


def test_f_a_mask_beside_the_activations_and_a_parameter(tmp_path):
    x = caches.tensor(24)
    caches.describe(tmp_path / "dump", caches.row_metadata(inputs.ROWS))
    (tmp_path / "dump" / "layer_3").mkdir()
    content = {"acts": torch.nn.Parameter(x.T.contiguous()).T, "mask": torch.ones(24, dtype=bool),
               "ids": torch.arange(24), "texts": [r["question"] for r in inputs.ROWS]}  # fmt: skip
    torch.save(content, tmp_path / "dump" / "layer_3" / "activations.pt")
    config, made = setup(tmp_path, ["rows"])
    (t,) = caches.run(config, made)
    np.testing.assert_array_equal(load_activations(t.path), caches.values(x))
