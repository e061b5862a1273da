"""A probe in the formats of other tools.

    safetensors    {weight [1, d], bias [1]} (of several classes [classes, d] and [classes])
    lie-detectors  probe.pt of UKGovernmentBEIS/lie_detectors: tensors and plain words alone
    gguf           a control vector, as llama.cpp and vgel/repeng read it
    skops          an estimator of scikit-learn (needs skops)
    onnx           a graph from activations to `decision` and `score` (needs onnx)

All but the GGUF file, which holds the direction alone, decide as the probe does. A threshold is in the
file of lie-detectors, in units of the decision; the others have none.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError
from actprobe.config import nearest
from actprobe.exchange import gguf
from actprobe.probes.kinds import BINARY, CONTINUOUS

if TYPE_CHECKING:
    from actprobe.face.probe import Probe

ENDINGS = {
    "safetensors": "safetensors", "lie-detectors": "pt", "gguf": "gguf", "skops": "skops",
    "onnx": "onnx",
}  # fmt: skip
_OPSET, _IR = 17, 8


def write(probe: Probe, form: str, path: Path) -> Path:
    """Write a probe to a file in one of the formats `ENDINGS`; returns the file.

    Raises ActprobeError for what a format cannot hold, and for a package that it needs.
    """
    writers: dict[str, Callable[[Probe, Path], None]] = {
        "safetensors": _safetensors, "lie-detectors": _lie_detectors, "gguf": _gguf,
        "skops": _skops, "onnx": _onnx,
    }  # fmt: skip
    if form not in writers:
        raise ActprobeError(f"no format {form!r} for probes; {nearest(form, writers)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[form](probe, path)
    return path


def decision_at(probe: Probe, score: float) -> float:
    """The decision whose score this is, of two classes."""
    match probe.scorer.model.link:
        case "logistic":
            return (
                math.log(score / (1 - score)) if 0 < score < 1 else math.copysign(math.inf, score)
            )
        case "soft_sign":
            z = 2 * score - 1
            return z / (1 - abs(z)) if abs(z) < 1 else math.copysign(math.inf, z)
    return score


def _refused(probe: Probe, form: str, holds: str) -> ActprobeError:
    model = probe.scorer.model.scorer
    return ActprobeError(
        f"{probe.name}: a {form} file holds {holds}; this one is {model} of {probe.origin.reads}, "
        f"labels {probe.kind}"
    )


def _planes(probe: Probe, form: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """coef [c, d] and intercept [c] of a linear probe."""
    if probe.scorer.model.scorer != "linear":
        raise _refused(probe, form, "linear probes")
    coef = np.atleast_2d(probe.coef_)
    return coef, np.atleast_1d(np.asarray(probe.intercept_, np.float64))


def _layers(probe: Probe) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weights [out, in] and biases of a network."""
    model = probe.scorer.model
    n = int(model.how["layers"])
    return [(model.arrays[f"weight_{i}"], model.arrays[f"bias_{i}"]) for i in range(n)]


def _safetensors(probe: Probe, path: Path) -> None:
    from safetensors.numpy import save_file

    coef, intercept = _planes(probe, "safetensors")
    arrays = {"weight": coef.astype(np.float32), "bias": intercept.astype(np.float32)}
    facts = {k: str(getattr(probe.origin, k)) for k in ("model", "site", "position")}
    facts["classes"] = ",".join(map(str, probe.classes_))
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, facts)


def _lie_detectors(probe: Probe, path: Path) -> None:
    import torch

    kind, _, layer = probe.origin.site.partition(".")
    model = probe.scorer.model
    one = probe.kind == BINARY and kind == "resid_post" and probe.origin.reads != "latents"
    linear = one and model.scorer == "linear"
    network = one and model.scorer == "layers" and model.how["activation"] == "relu"
    if not linear and not (network and model.how["layers"] == 2):
        raise _refused(
            probe, "lie-detectors", "linear probes and networks of one hidden layer (ReLU) that tell "
            "two classes apart at resid_post.L"
        )  # fmt: skip
    assert probe.threshold is not None

    def tensor(values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values, np.float32))

    if linear:
        coef, intercept = _planes(probe, "lie-detectors")
        state = {"linear.weight": tensor(coef), "linear.bias": tensor(intercept)}
    else:
        state = {}
        for i, (weight, bias) in enumerate(_layers(probe)):
            state |= {f"net.{2 * i}.weight": tensor(weight), f"net.{2 * i}.bias": tensor(bias)}
    d = int(probe.scorer.about["width"])
    state |= {"dataset_mean": torch.zeros(d), "dataset_std": torch.ones(d)}  # folded in
    state["threshold"] = tensor(decision_at(probe, probe.threshold))
    words = {
        "layer": int(layer), "probe_architecture": "lr" if linear else "mlp",
        "train_dataset": str(probe.card.fit.get("dataset", "")),
    }  # fmt: skip
    torch.save({"state_dict": state, "hyperparams": words}, path)


def _gguf(probe: Probe, path: Path) -> None:
    coef, _ = _planes(probe, "gguf")
    kind, _, layer = probe.origin.site.partition(".")
    if probe.kind != BINARY or kind not in ("resid_post", "resid_pre"):
        raise _refused(probe, "gguf", "one direction of the residual stream between layers")
    n = int(layer) - (kind == "resid_pre")
    gguf.write_control_vector(path, {n: coef[0]}, probe.origin.model)


def _skops(probe: Probe, path: Path) -> None:
    made = estimator(probe)
    _needed("skops.io", "skops").dump(made, path)


def estimator(probe: Probe) -> Any:
    """A linear probe as a fitted estimator of scikit-learn.

    LogisticRegression (its `decision_function` is the probe's, and its `predict_proba` the score of a
    probe with logistic or softmax scores), or Ridge of values.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    coef, intercept = _planes(probe, "skops")
    if probe.kind == CONTINUOUS:
        model: Any = Ridge()
        model.coef_, model.intercept_ = coef[0], float(intercept[0])
    else:
        model = LogisticRegression()
        model.coef_, model.intercept_ = coef, intercept
        model.classes_ = np.array([str(c) for c in probe.classes_])
        model.n_iter_ = np.zeros(1, np.int32)
    model.n_features_in_ = coef.shape[1]
    return model


def _onnx(probe: Probe, path: Path) -> None:
    """float32 `x` [N, d] to `decision` and `score`, [N] of two classes and of values, [N, classes]."""
    model = probe.scorer.model
    if model.scorer == "layers" and not model.before:
        layers, active = _layers(probe), model.how["activation"]
    elif model.scorer == "linear":
        layers, active = [_planes(probe, "onnx")], "identity"
    else:
        raise _refused(probe, "onnx", "linear probes and networks")
    onnx = _needed("onnx", "onnx")
    helper, numbers = onnx.helper, onnx.numpy_helper
    nodes, arrays, at = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        for name, values in ((f"weight_{i}", weight), (f"bias_{i}", bias)):
            arrays.append(numbers.from_array(np.ascontiguousarray(values, np.float32), name))
        nodes.append(
            helper.make_node("Gemm", [at, f"weight_{i}", f"bias_{i}"], [f"z_{i}"], transB=1)
        )
        at = f"z_{i}"
        if i + 1 < len(layers) and active != "identity":
            kinds = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}
            nodes.append(helper.make_node(kinds[active], [at], [f"a_{i}"]))
            at = f"a_{i}"
    wide = len(layers[-1][1])
    if wide == 1:
        arrays.append(numbers.from_array(np.array([1], np.int64), "column"))
        nodes.append(helper.make_node("Squeeze", [at, "column"], ["decision"]))
    else:
        nodes.append(helper.make_node("Identity", [at], ["decision"]))
    nodes += _link(helper, numbers, model.link, arrays)
    shape = ["N"] if wide == 1 else ["N", wide]
    float32 = onnx.TensorProto.FLOAT
    given = helper.make_tensor_value_info("x", float32, ["N", layers[0][0].shape[1]])
    outputs = [helper.make_tensor_value_info(n, float32, shape) for n in ("decision", "score")]
    graph = helper.make_graph(nodes, "probe", [given], outputs, arrays)
    opsets = [helper.make_opsetid("", _OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="actprobe")
    facts = {k: str(getattr(probe.origin, k)) for k in ("model", "site", "position")}
    helper.set_model_props(made, {**facts, "classes": ",".join(map(str, probe.classes_))})
    onnx.checker.check_model(made)
    onnx.save(made, path)


def _link(helper: Any, numbers: Any, link: str, arrays: list[Any]) -> list[Any]:
    """Nodes from `decision` to `score`."""
    match link:
        case "none":
            return [helper.make_node("Identity", ["decision"], ["score"])]
        case "logistic":
            return [helper.make_node("Sigmoid", ["decision"], ["score"])]
        case "softmax":
            return [helper.make_node("Softmax", ["decision"], ["score"], axis=1)]
        case "shares":
            arrays.append(numbers.from_array(np.array([1], np.int64), "classes"))
            return [
                helper.make_node("Sigmoid", ["decision"], ["each"]),
                helper.make_node("ReduceSum", ["each", "classes"], ["total"], keepdims=1),
                helper.make_node("Div", ["each", "total"], ["score"]),
            ]
    arrays.append(numbers.from_array(np.array(0.5, np.float32), "half"))
    arrays.append(numbers.from_array(np.array(1.0, np.float32), "one"))
    return [  # soft_sign: ½ + ½ z / (1 + |z|)
        helper.make_node("Abs", ["decision"], ["size"]),
        helper.make_node("Add", ["size", "one"], ["over"]),
        helper.make_node("Div", ["decision", "over"], ["sign"]),
        helper.make_node("Mul", ["sign", "half"], ["part"]),
        helper.make_node("Add", ["part", "half"], ["score"]),
    ]


def _needed(module: str, package: str) -> Any:
    """A package of an extra. Raises ActprobeError naming it where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ActprobeError(
            f"this format needs the package {package}: pip install 'actprobe[{package}]'"
        ) from None
