"""Export: directions and activations in the formats of other tools."""

from __future__ import annotations

import json
import struct
import sys
import types
import zipfile
from pathlib import Path

import contrastive_inputs as inputs
import interchange_caches as caches
import numpy as np
import pytest
import torch
import yaml
from configs import edited
from safetensors.numpy import load_file
from scipy.sparse import csr_array, load_npz
from test_contrastive_stage import project

from actprobe import cli
from actprobe.base import keys
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.plan import Target
from actprobe.dumps import lockfile
from actprobe.dumps import targets as dumps
from actprobe.exchange import export, gguf
from actprobe.models import load_activations, open_activations
from actprobe.results.directions import load_all
from actprobe.sae.records import ConvertSpec, FilesIdentity, Training, TrainSpec

LENGTHS = [1 + i % 3 for i in range(24)]


@pytest.fixture
def directions(tmp_path):
    """Paths of the directions of three layers, and what is in them."""
    sites = ["resid_post.0", "resid_post.1", "resid_post.2"]
    config, known = project(tmp_path, sites=sites, methods=["mean_difference"])
    paths = [t.path for t in inputs.run(config, known)]
    return paths, {d.row["site"]: d for d in load_all(paths)}


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
            tensors[f"direction.{layer}"], found[f"resid_post.{layer}"].direction, rtol=1e-6
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
        unit = found[f"resid_post.{layer}"].unit.astype(np.float32)
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
    np.testing.assert_allclose(tensors["resid_post.1"], found["resid_post.1"].unit, rtol=1e-6)
    (folder,) = export.vectors(paths, "pt", tmp_path / "out", unit=False)
    vector = torch.load(folder / "vectors" / "layer_1.pt", weights_only=True)
    np.testing.assert_allclose(vector[0], found["resid_post.1"].direction, rtol=1e-6)


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
    assert file == tmp_path / "out" / "m" / "rows" / f"resid_post.1.{t.args.position}.npy"
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
    config = edited(
        config, ["imports"], inputs.resolve(tmp_path, [], imports={"i": entry})["imports"]
    )
    (again,) = caches.run(config, texts)
    assert again.args.source == t.args.source.replace("m/", "again/")
    with open_activations(t.path) as one, open_activations(again.path) as other:
        np.testing.assert_array_equal(one.x[:], other.x[:])
        assert one.x.attrs["dtype"] == other.x.attrs["dtype"]
        if one.offsets is not None:
            np.testing.assert_array_equal(one.offsets, other.offsets)


_TIME = "131_temp_cat_Typical Time"
_ROOM = "66_living-room_translations"
NAMES = {  # dataset: what the package calls it, the file it was read from, whether it is "OOD data"
    "reviews": ("reviews", "reviews.json", False),
    "131_temp_cat_Typical_Time": (_TIME, f"cleaned_data/{_TIME}.csv.zst", False),
    "typical": (_TIME, f"cleaned_data/{_TIME}.csv.zst", False),
    "66_living-room_OOD": ("66_living-room_OOD", "OOD data/66_living-room_OOD.csv.zst", True),
    _ROOM: (_ROOM, f"OOD data/{_ROOM}.csv.zst", True),
    "mine_OOD": ("mine_OOD", "mine_OOD.csv", True),
    "renamed": ("renamed", "raw export.csv", False),
}


@pytest.fixture
def package(wheels, tmp_path, monkeypatch):
    """The sae-probes package's own check for activations, from its wheel, its libraries stubbed."""
    with zipfile.ZipFile(next(wheels.glob("sae_probes-0.4.2*.whl"))) as z:
        for name in ("constants", "utils_hooks", "generate_model_activations"):
            z.extract(f"sae_probes/{name}.py", tmp_path / "wheel")
    (tmp_path / "wheel" / "sae_probes" / "__init__.py").touch()
    stub = types.ModuleType("transformer_lens")
    stub.HookedTransformer = type("HookedTransformer", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformer_lens", stub)
    monkeypatch.syspath_prepend(tmp_path / "wheel")
    for name in [n for n in sys.modules if n.partition(".")[0] == "sae_probes"]:
        monkeypatch.delitem(sys.modules, name)
    import sae_probes.generate_model_activations as made

    monkeypatch.setattr(
        made.HookedTransformer, "from_pretrained_no_processing", None, raising=False
    )
    yield made.ensure_dataset_activations
    for name in [n for n in sys.modules if n.partition(".")[0] == "sae_probes"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_f_exports_lie_where_the_package_looks(tmp_path, package, monkeypatch, name):
    called, file, ood = NAMES[name]
    made = inputs.dataset(tmp_path, name, inputs.ROWS)
    config = inputs.resolve(tmp_path, [made])
    (texts,) = inputs.make_texts(config)
    t = inputs.activations(config, texts, caches.tensor(24).view(torch.uint16).numpy())
    said = {"member": f"sae_probes/data/{file}"} if "/" in file else {"file": file}
    facts = {"facts": {"provenance": said}}
    monkeypatch.setattr(export.store, "read_header", lambda path: facts)
    (path,) = export.activations([t], "saeprobes", tmp_path / "out")
    hook = "blocks.1.hook_resid_post"
    assert path.name == f"{called}_{hook}.pt"
    assert path.parent == tmp_path / "out" / "last" / f"model_activations_m{'_OOD' * ood}"
    if not ood or called.endswith("_OOD"):  # the package makes translations, and reads them nowhere
        short = called.removesuffix("_OOD") if ood else called
        package("m", [short], [hook], tmp_path / "out" / "last", OOD=ood)
    with pytest.raises(TypeError):  # it does look: without a file it loads the model
        package("m", ["another"], [hook], tmp_path / "out" / "last", OOD=ood)


def test_f_what_goes_out_under_the_packages_names_comes_in_again(tmp_path):
    """Blanks in a name, and a set of the package's "OOD data" in the folder beside it."""
    files = {
        "131_temp_cat_Typical_Time": "131_temp_cat_Typical Time",
        "66_living_OOD": "66_living_OOD",
    }
    made = []
    for name, file in files.items():
        inputs.dataset(tmp_path, file, inputs.ROWS)
        made.append(
            inputs.dataset(tmp_path, name, inputs.ROWS, path=str(tmp_path / f"{file}.json"))
        )
    config = inputs.resolve(tmp_path, made)
    texts = inputs.make_texts(config)
    ts = [inputs.activations(config, t, caches.tensor(24, seed=i).view(torch.uint16).numpy())
          for i, t in enumerate(texts)]  # fmt: skip
    written = export.activations(ts, "saeprobes", tmp_path / "out")
    assert [p.name for p in written] == [f"{f}_blocks.1.hook_resid_post.pt" for f in files.values()]
    entry = {"layout": "saeprobes", "folder": str(tmp_path / "out" / "last" / "model_activations_m"),
             "model": "again", "datasets": list(files)}  # fmt: skip
    config = edited(
        config, ["imports"], inputs.resolve(tmp_path, [], imports={"i": entry})["imports"]
    )
    again = caches.run(config, texts)
    assert [t.item for t in again] == sorted(files)
    for t in again:
        one = next(o for o in ts if o.item == t.item)
        np.testing.assert_array_equal(load_activations(t.path), load_activations(one.path))


@pytest.fixture
def latents(tmp_path):
    """The config of a dump of latents, its lock and its artefact, and the codes."""
    dense = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    dense[dense < 0.5] = 0
    codes = csr_array(dense)
    entry = {"source": {"run": "t/p/r"}, "lock": str(tmp_path / "lock.json"), "content": "latents"}
    config = inputs.resolve(tmp_path, [], dumps={"d": entry})
    locked = lockfile.LockedFile("resid_post.1.pt", 3, "md5", "0" * 32, "t/p/r")
    lock = lockfile.Lock(lockfile.config_source(config, "d"), {}, (locked,))
    lockfile.write(lock, tmp_path / "lock.json")
    (t,) = [t for t in dumps(config, {}, keys.DigestMemo(config["cache_dir"])) if not t.raw]
    arrays = {"data": codes.data, "indices": codes.indices.astype(np.int32),
              "indptr": codes.indptr.astype(np.int64), "shape": np.array(dense.shape)}  # fmt: skip
    store.publish([t.path], [store.write_h5(t.path, arrays, t.record)])
    return {"dumps": {"d": entry}}, dense


def test_f_latents_go_out_by_a_command(latents, tmp_path, capsys):
    sections, dense = latents
    raw = {"experiment": "toy", "datasets": [], "cache_dir": str(tmp_path / "cache"), **sections}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    where = ["--configfile", str(tmp_path / "config.yaml")]
    assert cli.main(["export", "latents", "npz", str(tmp_path / "out"), *where]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file == tmp_path / "out" / "d.resid_post.1" / "imported.npz"
    np.testing.assert_array_equal(load_npz(file).toarray(), dense)
    assert cli.main(["export", "latents", "safetensors", str(tmp_path / "out"), *where]) == 0
    found = load_file(capsys.readouterr().out.strip())
    rows = csr_array((found["data"], found["indices"], found["indptr"]), tuple(found["shape"]))
    np.testing.assert_array_equal(rows.toarray(), dense)
    assert cli.main(["export", "latents", "npz", "x", "--source", "other", *where]) == 1
    assert "the config asks for none such" in capsys.readouterr().err
    assert cli.main(["export", *where]) == 1
    assert "vectors, activations, latents, saes" in capsys.readouterr().err


def test_f_trained_saes_go_out_by_a_command(tmp_path, monkeypatch, capsys):
    train = Training(
        width=8, k=2, rows="all", epochs=1, batch_size=8, learning_rate=0.1, aux_k=None,
        aux_weight=0.0, dead_after=8, holdout=0.1, patience=1, seed=0,
    )  # fmt: skip
    published = FilesIdentity(format="saelens", files="0" * 64)
    specs = {"mine": TrainSpec(train=train, tokens=("k",)), "theirs": ConvertSpec(source=published)}
    made = {n: Target("saes", n, n, n, str(tmp_path / f"{n}.h5"), "k", s) for n, s in specs.items()}
    for t in made.values():
        Path(t.path).touch()
    monkeypatch.setattr(cli.experiment, "stages", lambda *a: {"saes": list(made.values())})
    written = []
    monkeypatch.setattr(
        "actprobe.sae.save_saelens", lambda path, into: written.append((path, into)) or into
    )
    (tmp_path / "config.yaml").write_text("experiment: toy\ndatasets: []\n")
    said = ["export", "saes", "saelens", str(tmp_path / "out"), "--configfile",
            str(tmp_path / "config.yaml")]  # fmt: skip
    assert cli.main(said) == 0
    assert written == [(made["mine"].path, tmp_path / "out" / "mine")]
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'mine'}\n"
    assert cli.main([*said, "--source", "theirs"]) == 1
    assert "no SAE that was trained here" in capsys.readouterr().err


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
    config = edited(config, ["imports"], inputs.resolve(tmp_path, [], imports=imports)["imports"])
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
