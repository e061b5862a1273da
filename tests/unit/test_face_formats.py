"""Probes in formats of other tools: out with equal decisions, in without running anything."""

from __future__ import annotations

import enum
import json
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import actprobe
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.exchange import probes_in, probes_out
from actprobe.face.card import Card
from actprobe.face.origin import Origin
from actprobe.face.probe import Probe
from actprobe.probes.keep import Kept, Scorer
from actprobe.probes.tokens import Ragged

D = 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, D))


def made(form="linear", kind="binary", site="resid_post.3", link=None, threshold=0.6):
    """A probe of some form."""
    classes = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "continuous": []}[kind]
    n = 3 if kind == "multiclass" else 1
    coef, intercept = RNG.standard_normal((n, D)), RNG.standard_normal(n)
    arrays = {"coef": coef if n > 1 else coef[0], "intercept": intercept if n > 1 else intercept[0]}
    how = {}
    if form == "layers":
        arrays = {"weight_0": RNG.standard_normal((4, D)), "bias_0": RNG.standard_normal(4)}
        arrays |= {"weight_1": RNG.standard_normal((n, 4)), "bias_1": RNG.standard_normal(n)}
        how = {"activation": "relu", "layers": 2}
    link = link or {"binary": "logistic", "multiclass": "softmax", "continuous": "none"}[kind]
    arrays = {k: np.asarray(v, float) for k, v in arrays.items()}
    about = {"kind": kind, "classes": classes, "reads": "activations", "width": D}
    origin = Origin(
        f"m/{site}.mean", "activations", "m", site, "mean", {"site": site, "position": "mean"}
    )
    limit = {"value": threshold, "rule": "fpr", "rows": ""} if kind == "binary" else None
    return Probe(Scorer(Kept(form, arrays, (), link, how), about), Card(origin, threshold=limit))


@pytest.mark.parametrize("form", ["linear", "layers"])
@pytest.mark.parametrize("link", ["logistic", "soft_sign"])
def test_a_checkpoint_of_lie_detectors_goes_out_and_in(tmp_path, form, link):
    probe = made(form, link=link)
    file = probe.export("lie-detectors", tmp_path / "probe.pt")
    content = torch.load(file, weights_only=True)
    assert set(content) == {"state_dict", "hyperparams"} and content["hyperparams"]["layer"] == 3
    found = actprobe.import_probe(file, position="mean")
    assert found.origin.site == "resid_post.3"
    assert np.allclose(found.decision_function(X), probe.decision_function(X), atol=1e-5)
    assert (found.predict(X) == "1").tolist() == (probe.predict(X) == "yes").tolist()


def enumeration(monkeypatch):
    """A value of the enum that published checkpoints hold."""
    names = "deception.detectors.utils.types".split(".")
    for n in range(1, 5):
        monkeypatch.setitem(sys.modules, ".".join(names[:n]), types.ModuleType(".".join(names[:n])))
    kind = enum.Enum("ProbeArchitecture", {"lr": "lr"}, module=".".join(names))
    sys.modules[".".join(names)].ProbeArchitecture = kind
    return kind.lr


def test_a_published_checkpoint_is_read_with_its_enum_and_its_scaler(tmp_path, monkeypatch):
    w, mean, std = torch.randn(1, D), torch.randn(D), torch.rand(D) + 0.5
    state = {"linear.weight": w, "linear.bias": torch.tensor([0.3]), "dataset_mean": mean}
    state |= {"dataset_std": std, "threshold": torch.tensor(1.5)}
    words = {"layer": 12, "l2_lambda": 10.0, "probe_architecture": enumeration(monkeypatch)}
    torch.save({"state_dict": state, "hyperparams": words}, tmp_path / "probe.pt")
    found = actprobe.import_probe(tmp_path / "probe.pt", position="mean", classes=["honest", "lie"])
    logits = ((torch.tensor(X, dtype=torch.float32) - mean) / std) @ w[0] + 0.3
    assert np.allclose(found.decision_function(X), logits.numpy(), atol=1e-4)
    assert found.origin.site == "resid_post.12"
    assert (found.predict(X) == "lie").tolist() == (logits > 1.5).tolist()
    assert found.card.fit["params"]["probe_architecture"] == "lr"


def test_a_direction_has_no_bias(tmp_path):
    state = {"direction": torch.randn(D), "threshold": torch.tensor(0.2)}
    torch.save({"state_dict": state, "hyperparams": {"layer": 1}}, tmp_path / "probe.pt")
    found = actprobe.import_probe(tmp_path / "probe.pt", position="last")
    assert np.allclose(found.decision_function(X), X @ state["direction"].numpy(), atol=1e-6)


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/actprobe-was-run", "w"))


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    torch.save(
        {"state_dict": {"direction": torch.ones(D)}, "hyperparams": Evil()}, tmp_path / "p.pt"
    )
    with pytest.raises(BadInput, match="refused to read its pickle"):
        actprobe.import_probe(tmp_path / "p.pt", position="mean")


def test_attention_probes_of_several_heads_with_positions(tmp_path):
    """The reference numbers of two heads over three tokens, with and without weights of the position."""
    q, v = torch.eye(2), torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    state = {
        "q.weight": q,
        "v.weight": v,
        "v.bias": torch.zeros(2),
        "position_weight": torch.zeros(2),
    }
    rows = Ragged(np.array([[1, 0], [0, 2], [3, 1]], np.float32), np.array([0, 3]))
    for slope, expected in (([0.0, 0.0], 4.9414069), ([0.5, -1.0], 4.2922093)):
        state["position_weight"] = torch.tensor(slope)
        torch.save(state, tmp_path / "probe.pt")
        found = actprobe.import_probe(tmp_path / "probe.pt", site="resid_post.1")
        assert found.decision_function(rows)[0] == pytest.approx(expected, abs=1e-6)
        again = actprobe.load_probe(found.save(tmp_path / "kept"))
        assert again.decision_function(rows)[0] == pytest.approx(expected, abs=1e-6)


def test_plain_weights_and_the_config_beside_them(tmp_path):
    weight, bias = RNG.standard_normal((1, D)).astype("f4"), np.array([0.5], "f4")
    save_file({"weight": weight, "bias": bias}, tmp_path / "p.safetensors")
    with pytest.raises(ActprobeError, match="does not say its site and position"):
        actprobe.import_probe(tmp_path / "p.safetensors")
    found = actprobe.import_probe(tmp_path / "p.safetensors", "tokens", "resid_post.2")
    assert np.allclose(found.decision_function(X), X @ weight[0] + 0.5, atol=1e-6)
    (tmp_path / "probe_config.json").write_text(json.dumps({"layer_idx": 30, "hidden_size": D}))
    assert probes_in.read(tmp_path / "p.safetensors").site == "resid_post.30"
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="with the adapter beside it"):
        probes_in.read(tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    ("state", "words"),
    [({"linear.weight": torch.ones(1, D), "linear.bias": torch.ones(1)}, "no threshold"),
     ({"linear.weight": torch.ones(1, D), "linear.bias": torch.ones(1), "threshold": torch.tensor(0.0),
       "dataset_mean": torch.ones(D - 1), "dataset_std": torch.ones(D)}, "dataset_mean .4,., expected"),
     ({"weight": torch.full((1, D), torch.nan)}, "'weight' has values that are not finite"),
     ({"weight": torch.ones(2, D), "bias": torch.ones(3)}, "do not fit each other"),
     ({"q.weight": torch.ones(2, D), "v.weight": torch.ones(3, D)}, "expected one output"),
     ({"something": torch.ones(3)}, "no probe of a known format")],
)  # fmt: skip
def test_files_that_hold_no_probe_are_named(tmp_path, state, words):
    torch.save(state, tmp_path / "p.pt")
    with pytest.raises(BadInput, match=words):
        actprobe.import_probe(tmp_path / "p.pt", position="mean", site="resid_post.1")


def test_a_control_vector_is_what_gguf_reads(tmp_path):
    from gguf import GGUFReader

    probe = made()
    reader = GGUFReader(probe.export("gguf", tmp_path / "v.gguf"))
    (tensor,) = reader.tensors
    assert tensor.name == "direction.3" and np.allclose(tensor.data, probe.coef_, atol=1e-6)
    with pytest.raises(ActprobeError, match="layers 1 and up"):
        made(site="resid_post.0").export("gguf", tmp_path / "v.gguf")


@pytest.mark.parametrize("form", probes_out.ENDINGS)
def test_what_a_format_cannot_hold_is_refused(tmp_path, form):
    with pytest.raises(ActprobeError, match="file holds"):
        made("tree").export(form, tmp_path / "x")


@pytest.mark.parametrize("package", ["onnx", "skops"])
def test_a_package_that_is_not_there_is_named(tmp_path, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    with pytest.raises(ActprobeError, match=rf"pip install 'actprobe\[{package}\]'"):
        made().export(package, tmp_path / "x")


@pytest.mark.parametrize(
    ("form", "kind", "link"),
    [("linear", "binary", "logistic"), ("linear", "binary", "soft_sign"), ("layers", "binary", None),
     ("linear", "multiclass", "softmax"), ("linear", "multiclass", "shares"),
     ("layers", "multiclass", None), ("linear", "continuous", None)],
)  # fmt: skip
def test_onnx_gives_equal_scores(tmp_path, form, kind, link):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    probe = made(form, kind, link=link)
    session = runtime.InferenceSession(probe.export("onnx", tmp_path / "p.onnx"))
    decision, score = session.run(None, {"x": X.astype(np.float32)})
    assert np.allclose(decision, probe.decision_function(X), atol=1e-5)
    assert np.allclose(score, probe.score(X), atol=1e-6)
    assert session.get_modelmeta().custom_metadata_map["site"] == "resid_post.3"


@pytest.mark.parametrize("kind", ["binary", "multiclass", "continuous"])
def test_skops_gives_an_equal_estimator(tmp_path, kind):
    io = pytest.importorskip("skops.io")
    probe = made(kind=kind)
    found = io.load(probe.export("skops", tmp_path / "p.skops"))
    if kind == "continuous":
        assert np.allclose(found.predict(X), probe.score(X))
        return
    assert np.allclose(found.decision_function(X), probe.decision_function(X))
    proba = found.predict_proba(X)
    assert np.allclose(proba[:, 1] if kind == "binary" else proba, probe.score(X))
