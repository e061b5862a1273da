"""Export: directions and activations in the formats of other tools."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import contrastive_inputs as inputs
import interchange_caches as caches
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from test_contrastive_stage import project

from actprobe import cli, contrastive
from actprobe.errors import ActprobeError
from actprobe.interchange import export, gguf
from actprobe.models import load_activations, open_activations

LENGTHS = [1 + i % 3 for i in range(24)]


@pytest.fixture
def directions(tmp_path):
    """Paths of the directions of three layers, and what is in them."""
    sites = ["resid_post.0", "resid_post.1", "resid_post.2"]
    config, known = project(tmp_path, sites=sites, methods=["mean_difference"])
    paths = [t.path for t in inputs.run(config, known) if t.stage == "contrastive"]
    return paths, {d.facts["site"]: d for d in map(contrastive.load, paths)}


def read_gguf(path: Path) -> tuple[dict, dict]:
    """Metadata and tensors of a GGUF file, written from the format's description."""
    data, at = path.read_bytes(), 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n : at].decode()

    assert take("4s") == b"GGUF" and take("I") == 3
    n_tensors, n_values = take("QQ")
    metadata = {}
    for _ in range(n_values):
        key, kind = text(), take("I")
        metadata[key] = text() if kind == 8 else take("I")
    places = {}
    for _ in range(n_tensors):
        name, dims = text(), take("I")
        assert dims == 1
        places[name] = take("QIQ")
    at = -(-at // 32) * 32
    assert all(offset % 32 == 0 and kind == 0 for _, kind, offset in places.values())
    tensors = {
        name: np.frombuffer(data, "<f4", n, at + offset) for name, (n, _, offset) in places.items()
    }
    return metadata, tensors


def test_a_control_vector_holds_the_direction_of_every_layer_but_the_first(directions, tmp_path):
    paths, found = directions
    (file,) = export.vectors(paths, "gguf", tmp_path / "out", unit=False)
    metadata, tensors = read_gguf(file)
    assert metadata == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "m",
        "controlvector.layer_count": 2,
    }
    assert list(tensors) == ["direction.1", "direction.2"]
    for layer in (1, 2):
        np.testing.assert_allclose(
            tensors[f"direction.{layer}"], found[f"resid_post.{layer}"].direction[0], rtol=1e-6
        )


def test_a_control_vector_is_read_by_the_package_of_llama_cpp(directions, tmp_path):
    from gguf import GGUFReader

    paths, found = directions
    (file,) = export.vectors(paths, "gguf", tmp_path / "out", unit=True)
    read = GGUFReader(file)
    assert read.fields["general.architecture"].contents() == "controlvector"
    assert read.fields["controlvector.model_hint"].contents() == "m"
    assert read.fields["controlvector.layer_count"].contents() == 2
    tensors = {t.name: t.data for t in read.tensors}
    assert list(tensors) == ["direction.1", "direction.2"]
    for layer in (1, 2):
        unit = found[f"resid_post.{layer}"].unit[0].astype(np.float32)
        assert np.array_equal(tensors[f"direction.{layer}"], unit)


def test_resid_pre_of_a_layer_is_the_output_of_the_layer_before():
    vectors = {"resid_pre.2": np.ones(3), "resid_pre.1": np.zeros(3)}
    assert list(export._outputs("x", vectors)) == [1]
    with pytest.raises(ActprobeError, match=r"mlp_out.3 is not there"):
        export._outputs("x", {"mlp_out.3": np.ones(3)})


@pytest.mark.parametrize("bad", [{}, {0: np.ones(2)}, {1: np.ones(2), 2: np.ones(3)}])
def test_a_control_vector_of_nothing_is_refused(tmp_path, bad):
    with pytest.raises(ActprobeError, match="directions of one width at layers 1 and up"):
        gguf.write_control_vector(tmp_path / "v.gguf", bad, "llama")


def test_directions_as_safetensors_and_pt(directions, tmp_path):
    paths, found = directions
    (file,) = export.vectors(paths, "safetensors", tmp_path / "out", unit=True)
    tensors = load_file(file)
    assert set(tensors) == set(found)
    np.testing.assert_allclose(tensors["resid_post.1"], found["resid_post.1"].unit[0], rtol=1e-6)
    (folder,) = export.vectors(paths, "pt", tmp_path / "out", unit=False)
    vector = torch.load(folder / "vectors" / "layer_1.pt", weights_only=True)
    np.testing.assert_allclose(vector[0], found["resid_post.1"].direction[0], rtol=1e-6)


@pytest.fixture
def cached(tmp_path):
    """Config, texts, and activations of pairs and rows (last) and of rows (tokens), bfloat16."""
    datasets = [
        inputs.dataset(tmp_path, "pairs", inputs.PAIRS),
        inputs.dataset(tmp_path, "rows", inputs.ROWS),
    ]
    config = inputs.resolve(tmp_path, datasets)
    pairs, rows = texts = inputs.make_texts(config)
    bits = {n: caches.tensor(n, seed=n).view(torch.uint16).numpy() for n in (40, 24, sum(LENGTHS))}
    return config, texts, {
        "pairs": inputs.activations(config, pairs, bits[40]),
        "rows": inputs.activations(config, rows, bits[24]),
        "tokens": inputs.activations(config, rows, bits[sum(LENGTHS)], lengths=LENGTHS),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rows", "tokens"])
def test_matrices_as_npy_and_safetensors(cached, tmp_path, name, monkeypatch):
    monkeypatch.setattr(export, "_BLOCK", 64)
    t = cached[2][name]
    expected = load_activations(t.path)
    (file,) = export.activations([t], "npy", tmp_path / "out")
    assert file == tmp_path / "out" / "m" / "rows" / f"resid_post.1.{t.args['position']}.npy"
    np.testing.assert_array_equal(np.load(file), expected)
    (file,) = export.activations([t], "safetensors", tmp_path / "out")
    from safetensors.torch import load_file as load_torch

    tensors = load_torch(file)
    assert tensors["x"].dtype == torch.bfloat16
    np.testing.assert_array_equal(tensors["x"].float(), expected)
    with open_activations(t.path) as a:
        np.testing.assert_array_equal(tensors["n_tokens"], a.n_tokens)
        if name == "tokens":
            np.testing.assert_array_equal(tensors["offsets"], a.offsets)
            np.testing.assert_array_equal(tensors["token_ids"], a.token_ids)


ROUND_TRIPS = [
    ("pairs", "v1", "m/pairs.resid_post.last"),
    ("rows", "v1", "m/rows.resid_post.last"),
    ("tokens", "v2", "m/rows.resid_post.tokens"),
    ("rows", "saeprobes", "last/model_activations_m"),
    ("rows", "safetensors", "m"),
    ("tokens", "safetensors", "m"),
]


@pytest.mark.parametrize(("name", "form", "folder"), ROUND_TRIPS)
def test_what_goes_out_comes_in_again(cached, tmp_path, name, form, folder):
    config, texts, artefacts = cached
    t = artefacts[name]
    export.activations([t], form, tmp_path / "out")
    entry = {"layout": form, "folder": str(tmp_path / "out" / folder), "model": "again"}
    entry |= {"datasets": [t.item], "hook": "resid_post" if form in ("v1", "v2") else None}
    config["imports"] = inputs.resolve(tmp_path, [], imports={"i": entry})["imports"]
    (again,) = caches.run(config, texts)
    assert again.args["source"] == t.args["source"].replace("m/", "again/")
    with open_activations(t.path) as one, open_activations(again.path) as other:
        np.testing.assert_array_equal(one.x[:], other.x[:])
        assert one.x.attrs["dtype"] == other.x.attrs["dtype"]
        if one.offsets is not None:
            np.testing.assert_array_equal(one.offsets, other.offsets)


@pytest.mark.parametrize("form", ["v1", "v2"])
@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (None, ("(A)", "(B)")),
        ("{text} {answer}", ("It is so.", "It is not so.")),
        ("{text}\n\n{answer}", ("It is so.\n\nSure.", "No.")),
    ],
)
def test_pairs_go_out_with_their_own_answers(tmp_path, form, template, answers):
    rows = [{**r, "positive": answers[0], "negative": answers[1]} for r in inputs.PAIRS[::2]]
    config = inputs.resolve(tmp_path, [inputs.dataset(tmp_path, "pairs", rows, template=template)])
    texts = inputs.make_texts(config)
    lengths = {"v1": None, "v2": [1 + i % 3 for i in range(20)]}[form]
    x = caches.tensor(sum(lengths) if lengths else 20).view(torch.uint16).numpy()
    t = inputs.activations(config, texts[0], x, lengths=lengths)
    (folder,) = export.activations([t], form, tmp_path / "out")
    first = json.loads((folder / "metadata.json").read_text())[0]
    assert first["question"] == rows[0]["question"]
    assert (first["test_answer"], first["deploy_answer"]) == answers
    entry = {"layout": form, "folder": str(folder), "model": "again", "hook": "resid_post"}
    imports = {"i": {**entry, "datasets": ["pairs"]}}
    config["imports"] = inputs.resolve(tmp_path, [], imports=imports)["imports"]
    (again,) = caches.run(config, texts)
    np.testing.assert_array_equal(load_activations(again.path), load_activations(t.path))


def test_a_column_of_pairs_makes_no_answers(tmp_path):
    rows = [{**r, "of": str(i // 2)} for i, r in enumerate(inputs.ROWS)]
    config = inputs.resolve(tmp_path, [inputs.dataset(tmp_path, "rows", rows, pair="of")])
    t = inputs.activations(config, *inputs.make_texts(config), caches.values(caches.tensor(24)))
    (folder,) = export.activations([t], "v1", tmp_path / "out")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert [m["type"] for m in metadata] == ["testing", "deployment"] * 12
    x = torch.load(folder / "layer_1" / "activations.pt", weights_only=True)
    np.testing.assert_array_equal(caches.values(x), load_activations(t.path))


def test_a_stacked_cache_looks_as_its_readers_expect(cached, tmp_path):
    _, _, artefacts = cached
    (folder,) = export.activations([artefacts["pairs"]], "v1", tmp_path)
    test = torch.load(folder / "layer_1" / "test_activations.pt", weights_only=True)
    assert test.shape == (20, 1, 4) and test.dtype == torch.bfloat16
    info = json.loads((folder / "layer_info.json").read_text())
    assert info["layers"] == [1] and info["num_examples"] == 20
    assert info["activation_shape"] == [1, 4] and "storage_format" not in info
    first = json.loads((folder / "metadata.json").read_text())[0]
    assert first == {
        "idx": 0,
        "question": inputs.PAIRS[0]["question"],
        "test_answer": "(A)",
        "deploy_answer": "(B)",
        "test_token_type": "A",
        "deploy_token_type": "B",
    }


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("tokens", "v1", "layout v1 holds one vector per row"),
        ("rows", "v2", "layout v2 holds all tokens"),
        ("tokens", "saeprobes", "layout saeprobes holds one vector"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(cached, tmp_path, name, form, words):
    with pytest.raises(ActprobeError, match=words):
        export.activations([cached[2][name]], form, tmp_path)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    """Import, then export what was imported."""
    monkeypatch.chdir(tmp_path)
    caches.describe(tmp_path / "dump", caches.row_metadata(inputs.ROWS))
    caches.save(tmp_path / "dump", 3, activations=caches.tensor(24))
    entry = {"layout": "v1", "folder": "dump", "model": "llama", "datasets": ["rows"]}
    raw = {
        "experiment": "toy",
        "datasets": [inputs.dataset(tmp_path, "rows", inputs.ROWS)],
        "imports": {"dump": entry | {"hook": "resid_post"}},
    }
    Path("config.yaml").write_text(yaml.safe_dump(raw))
    said = ["export", "activations", "npy", "out", "--configfile", "config.yaml"]
    assert cli.main(said) == 1 and "run snakemake first" in capsys.readouterr().err
    config = inputs.resolve(tmp_path, raw["datasets"], imports=raw["imports"], cache_dir="cache")
    caches.run(config, inputs.make_texts(config))
    assert cli.main(said) == 0
    file = Path(capsys.readouterr().out.strip())
    np.testing.assert_array_equal(np.load(file), caches.values(caches.tensor(24)))
    assert cli.main([*said, "--source", "gemma/*"]) == 1
    assert "asks for none such" in capsys.readouterr().err
