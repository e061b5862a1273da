"""Every walk of CONTRIBUTING.md, done with the code that stands there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import models_tiny
import numpy as np
import pytest
import sae_tiny
import texts_inputs
import yaml
from safetensors.numpy import save_file

import actprobe
from actprobe import models
from actprobe.cache import plan, store
from actprobe.experiment import stages
from actprobe.experiment import targets as experiment
from actprobe.models import architectures
from actprobe.probes import extensions, methods, metrics, protocol
from actprobe.sae import formats
from actprobe.texts import read, sources


@pytest.fixture
def code(root):
    """The code of the page by the name of its file."""
    page = (root / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.S))


def test_a_method_and_a_metric(code, tmp_path):
    for name in ("mine.py", "mine.yaml"):
        (tmp_path / name).write_text(code[name])
    extensions.load([str(tmp_path / "mine.py")])
    how = protocol.load(str(tmp_path / "mine.yaml"))
    text = yaml.safe_load(code["mine.yaml"])["methods"]["own"]
    family = methods.family(text["family"])
    grid = family.grid(text, methods.Shape(6, 1, 4), 0)
    assert grid == [{"shrink_threshold": 0.01}, {"shrink_threshold": 0.5}]
    x, y = np.array([[0.0], [1], [2], [10], [11], [12]]), np.array([0, 0, 0, 1, 1, 1])
    assert family.make(text, grid[0], 0).fit(x, y).predict([[1.5], [9.0]]).tolist() == [0, 1]
    assert "own" in str(how)
    found = metrics.measure(
        "binary", np.array([1, 1, 0]), np.array([0.9, 0.1, 0.2]), np.array([1, 0, 0])
    )
    assert found["test_misses"] == 0.5


def test_a_model_family(code, tmp_path, monkeypatch):
    """The entry of the page gives every site of a Llama, as the project's own does."""
    folder = models_tiny.save_model("llama", tmp_path / "model")
    sites = [f"{kind}.1" for kind in architectures.SITES if kind != "embed"]
    wanted = {"sites": sites, "positions": ["mean"]}
    own = _vectors(tmp_path / "own", folder, wanted)

    families = dict(architectures.FAMILIES)
    del families["llama"]
    exec(code["architectures.py"], {**vars(architectures), "FAMILIES": families})
    monkeypatch.setitem(architectures.FAMILIES, "llama", families["mymodel"])
    walked = _vectors(tmp_path / "walked", folder, wanted)
    assert set(own) == set(walked) and len(own) == len(sites)
    assert all(np.array_equal(own[name], walked[name]) for name in own)

    monkeypatch.delitem(architectures.FAMILIES, "llama")
    with pytest.raises(
        actprobe.base.errors.ConfigError, match="not mapped for the model family 'llama'"
    ):
        _vectors(tmp_path / "without", folder, wanted)


def _vectors(cache: Path, folder: Path, wanted):
    cache.mkdir()
    config = models_tiny.make_config(cache, models_tiny.model_entry(folder), wanted)
    found = models_tiny.run(config, models_tiny.write_texts(cache))
    return {t.name: models.load_activations(t.path)[:] for t in found}


def test_an_sae_format(code, tmp_path, monkeypatch):
    known = dict(formats.FORMATS)
    names = {k: dict(v) for k, v in formats.NAMES.items()}
    exec(code["myformat.py"], {"Format": formats.Format, "FORMATS": known, "NAMES": names})
    monkeypatch.setitem(formats.FORMATS, "myformat", known["myformat"])
    for tensor in ("W_enc", "W_dec"):
        monkeypatch.setitem(formats.NAMES, tensor, names[tensor])

    p, folder = sae_tiny.parameters(), tmp_path / "sae"
    folder.mkdir()
    about = {
        "latents": sae_tiny.F,
        "width_of_model": sae_tiny.D,
        "active": sae_tiny.K,
    }
    (folder / "about.json").write_text(json.dumps(about))
    weights = {"my_encoder": p["W_enc"].T, "my_decoder": p["W_dec"], "b_enc": p["b_enc"]}
    weights |= {"b_dec": p["b_dec"]}
    save_file(
        {k: np.ascontiguousarray(v) for k, v in weights.items()}, folder / "weights.safetensors"
    )

    x = sae_tiny.rows(40)
    found = sae_tiny.codes(tmp_path, folder, x)
    expected = sae_tiny.dense(p, x, "topk", b_dec=False)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5) and found.any()


def test_a_dataset_reader(code, tmp_path, monkeypatch):
    readers = dict(read.READERS)
    exec(code["read.py"], {**vars(read), "READERS": readers})
    monkeypatch.setitem(read.READERS, "yaml", readers["yaml"])
    monkeypatch.setattr(sources, "FORMATS", (*sources.FORMATS, "yaml"))

    file = tmp_path / "d.yaml"
    file.write_text("- {text: it rains, label: 0}\n- {text: 'the sun, at last', label: 1}\n")
    entry = {"name": "d", "path": str(file)}
    [t] = texts_inputs.build(tmp_path, entry)
    found = texts_inputs.texts_of(t.path)
    assert list(found.text) == ["it rains", "the sun, at last"] and found.label.tolist() == [0, 1]

    for content, said in (("- {text: a}\n", "no column 'label'"), ("- {text: [a\n", "not YAML")):
        file.write_text(content)
        with pytest.raises(
            actprobe.base.errors.ActprobeError, match=rf"dataset d, .*d\.yaml: {said}"
        ):
            texts_inputs.build(tmp_path, entry)


def test_a_stage(code, tmp_path, monkeypatch):
    room = tmp_path / "package" / "lengths"
    room.mkdir(parents=True)
    for name in ("targets.py", "run.py"):
        (room / name).write_text(code[f"lengths/{name}"])
    monkeypatch.setattr(actprobe, "__path__", [*actprobe.__path__, str(room.parent)])
    monkeypatch.setitem(stages.STAGES, "lengths", stages.Stage("lengths.run:run"))
    from actprobe.lengths import targets as lengths  # type: ignore[import-not-found]

    file = tmp_path / "d.csv"
    file.write_text("text,label\n it rains ,0\nsun,1\n")
    entry = {"name": "d", "path": str(file)}
    known = {"texts": texts_inputs.build(tmp_path, entry)}
    config = texts_inputs.configured(tmp_path, entry)

    def planned():
        [t] = lengths.targets(config, known)
        return plan.make(config, [*known["texts"], t], [t.path])

    first = planned()
    frozen = plan.thaw(plan.freeze(first, tmp_path / "plans"))  # as a job gets it
    for batch in frozen.in_order():
        experiment.run(batch, config, 1)
    [path] = first.paths("lengths")
    assert store.read_table(path)["n"].to_pylist() == [8, 3]
    assert store.verify(path)["spec"]["version"] == 1
    assert not planned().pending, "computed once"
    monkeypatch.setattr(lengths, "VERSION", 2)
    again = planned()
    assert [s.status for s in again.pending.values()] == [plan.STALE]
    assert "stage version 1 → 2" in next(iter(again.pending.values())).why
    shutil.rmtree(room)


def test_the_files_that_the_page_names_are_there(root):
    page = (root / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:src|tests|docs|benchmarks|workflow|envs)/[\w/.-]+)`", page)
    missing = [n for n in named if not (root / n).exists() and "lengths" not in n]
    assert named and not missing
