"""Probes of other tools, read as kept models: which format a file is of, its weights, and where it says
that they belong.

    lie-detectors     {"state_dict", "hyperparams"} of UKGovernmentBEIS/lie_detectors (dim, lr, mlp)
    attention-probes  a state dict of EleutherAI/attention-probes (q, v, position_weight)
    plain             {weight [1, d], bias [1]}, safetensors or PyTorch: also `probe_head.bin` of
                      obalcells/hallucination_probes, with its `probe_config.json` beside it

Nothing in a file is run: tensors are read by `files`, the words beside them as words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.files import as_float32, is_float, open_arrays
from actprobe.probes.keep import Kept, scorer
from actprobe.probes.kinds import BINARY, MULTICLASS

_FLAG = "pt"
_WRAPPERS = ("state_dict.", "model_state_dict.")


@dataclass(frozen=True)
class Foreign:
    """What a file of another tool holds.

    kept: the model; reads: of `activations` or `tokens`; kind: of the label; site: where it says that
    it reads, or ""; threshold: a decision above which a row is of class 1; words: what it says besides.
    """

    form: str
    kept: Kept
    width: int
    reads: str = "activations"
    kind: str = BINARY
    site: str = ""
    threshold: float = 0.0
    words: Mapping[str, Any] = field(default_factory=dict)


def read(path: str | Path) -> Foreign:
    """The probe in a file. Raises BadInput naming what it holds where that is no probe known here."""
    path = Path(path)
    kind = "safetensors" if path.suffix == ".safetensors" else _FLAG
    with open_arrays(path, kind) as found:
        arrays: dict[str, NDArray[np.float64]] = {}
        for name, a in found.arrays.items():
            if is_float(a.dtype):
                block = a.rows(0, a.shape[0])
                exact = a.dtype == "float64"
                arrays[name] = block if exact else as_float32(block, a.dtype).astype(np.float64)
        numbers, told = dict(found.numbers), found.told
        words = {k.removeprefix("hyperparams."): v for k, v in found.metadata.items()}
    for wrapper in _WRAPPERS:
        arrays = {k.removeprefix(wrapper): v for k, v in arrays.items()}
        numbers = {k.removeprefix(wrapper): v for k, v in numbers.items()}
    _check_finite(arrays, path)
    names = set(arrays)
    if {"q.weight", "v.weight"} <= names:
        return _attention(arrays, path)
    if names & {"linear.weight", "direction", "net.0.weight"}:
        return _lie_detector(arrays, numbers, words, path)
    if "weight" in names and names <= {"weight", "bias"}:
        return _plain(arrays, numbers, path)
    raise BadInput(
        f"{path}: no probe of a known format; expected lie-detectors (linear.weight, direction or "
        f"net.0.weight), attention-probes (q.weight, v.weight) or weight and bias; found {told}"
    )


def _check_finite(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise BadInput(f"{path}: the tensor {name!r} has values that are not finite")


def _lie_detector(
    arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float], words: Mapping[str, Any],
    path: Path,
) -> Foreign:  # fmt: skip
    """score = x·direction; or linear((x - mean) / std), or a network of it, in logits."""
    layer = words.get("layer")
    site = f"resid_post.{layer}" if isinstance(layer, int) and layer >= 0 else ""
    limit = float(numbers.get("threshold", np.nan))
    if not np.isfinite(limit):
        raise BadInput(f"{path}: no threshold; expected a tensor `threshold` of one number")
    told = {k: v for k, v in words.items() if isinstance(v, (str, int, float))}
    if "direction" in arrays:
        w = _vector(arrays, "direction", path)
        kept = Kept("linear", {"coef": w, "intercept": np.array(0.0)}, link="logistic")
        return Foreign("lie-detectors", kept, len(w), site=site, threshold=limit, words=told)
    first = "linear.weight" if "linear.weight" in arrays else "net.0.weight"
    weight = arrays[first]
    d = weight.shape[-1]
    mean = _of_width(arrays, "dataset_mean", d, path)
    std = _of_width(arrays, "dataset_std", d, path)
    if (std == 0).any():
        raise BadInput(f"{path}: dataset_std is 0 in {int((std == 0).sum())} columns")
    bias = _of_width(arrays, first.replace("weight", "bias"), len(weight), path)
    folded = weight / std
    shifted = bias - folded @ mean
    if first == "linear.weight":
        if len(weight) != 1:
            raise BadInput(f"{path}: linear.weight {weight.shape}, expected [1, d]")
        plane = {"coef": folded[0], "intercept": np.array(shifted[0])}
        kept = Kept("linear", plane, link="logistic")
    else:
        last = arrays.get("net.2.weight")
        if last is None or last.shape != (1, len(weight)):
            shape = None if last is None else last.shape
            raise BadInput(f"{path}: net.2.weight {shape}, expected (1, {len(weight)})")
        layers = {"weight_0": folded, "bias_0": shifted, "weight_1": last}
        layers["bias_1"] = _of_width(arrays, "net.2.bias", 1, path)
        kept = Kept("layers", layers, link="logistic", how={"activation": "relu", "layers": 2})
    return Foreign("lie-detectors", kept, d, site=site, threshold=limit, words=told)


def _plain(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float], path: Path) -> Foreign:
    weight = np.atleast_2d(arrays["weight"])
    bias = arrays.get("bias", np.full(len(weight), numbers.get("bias", 0.0)))
    if weight.ndim != 2 or bias.reshape(-1).shape != (len(weight),):
        raise BadInput(f"{path}: weight {weight.shape} and bias {bias.shape} do not fit each other")
    site, words = _beside(path)
    bias = bias.reshape(-1).astype(np.float64)
    if len(weight) == 1:
        plane = {"coef": weight[0], "intercept": np.array(bias[0])}
        kept = Kept("linear", plane, link="logistic")
        return Foreign("plain", kept, weight.shape[1], site=site, words=words)
    kept = Kept("linear", {"coef": weight, "intercept": bias}, link="softmax")
    return Foreign("plain", kept, weight.shape[1], kind=MULTICLASS, site=site, words=words)


def _beside(path: Path) -> tuple[str, dict[str, Any]]:
    """The site that a probe_config.json beside the file names. An adapter beside it is refused."""
    if (path.parent / "adapter_config.json").is_file():
        raise BadInput(
            f"{path}: its probe reads the model with the adapter beside it (adapter_config.json); on "
            "the model as it is its scores mean nothing. Merge the adapter, and give the file alone"
        )
    config = path.parent / "probe_config.json"
    if not config.is_file():
        return "", {}
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        layer = told.get("layer_idx")
    except (OSError, ValueError, AttributeError) as e:
        raise BadInput(f"{config}: {e}") from None
    if not isinstance(layer, int) or layer < 0:
        raise BadInput(f"{config}: layer_idx is {layer!r}; expected one layer, counted from 0")
    return f"resid_post.{layer}", {k: v for k, v in told.items() if isinstance(v, (str, int))}


def _attention(arrays: Mapping[str, NDArray[Any]], path: Path) -> Foreign:
    """Σ_h Σ_t softmax_t(q_h·x_t + t·r_h) (v_h·x_t) + Σ_h bias_h; t counts a row's kept tokens from 0."""
    q, v = arrays["q.weight"], arrays["v.weight"]
    if any(name.startswith("o.") for name in arrays):
        raise BadInput(f"{path}: a network behind the heads (o.weight) is not read here")
    heads, d = q.shape
    if v.shape != (heads, d):
        raise BadInput(
            f"{path}: v.weight {v.shape} for q.weight {q.shape}; expected one output, {(heads, d)}"
        )
    position = arrays.get("position_weight", np.zeros(heads)).reshape(-1)
    bias = arrays.get("v.bias", np.zeros(heads)).reshape(-1)
    if len(position) != heads or len(bias) != heads:
        raise BadInput(f"{path}: position_weight and v.bias need {heads} values each")
    model = {"query": q, "value": v, "slope": position, "intercept": np.array(bias.sum())}
    kept = Kept("heads", model, link="logistic")
    return Foreign("attention-probes", kept, d, reads="tokens")


@scorer("heads")
def heads(arrays: Mapping[str, NDArray[Any]], how: Mapping[str, Any], rows: Any) -> Any:
    """Attention of several heads with a weight of the position: query, value [H, d], slope [H]; rows are
    `tokens.Ragged`, each with a token at least."""
    starts = rows.offsets[:-1]
    place = np.arange(len(rows.x)) - np.repeat(starts, rows.lengths)
    total = np.zeros(len(starts))
    x = rows.x.astype(np.float64)
    for query, value, slope in zip(arrays["query"], arrays["value"], arrays["slope"], strict=True):
        asked = x @ query + slope * place
        weight = np.exp(asked - np.repeat(np.maximum.reduceat(asked, starts), rows.lengths))
        said = np.add.reduceat(weight * (x @ value), starts)
        total += said / np.add.reduceat(weight, starts)
    return total + arrays["intercept"]


def _vector(arrays: Mapping[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    if arrays[name].ndim != 1:
        raise BadInput(f"{path}: {name} {arrays[name].shape}, expected [d]")
    return arrays[name]


def _of_width(arrays: Mapping[str, NDArray[Any]], name: str, d: int, path: Path) -> NDArray[Any]:
    found = arrays.get(name)
    if found is None or found.shape != (d,):
        shape = None if found is None else found.shape
        raise BadInput(f"{path}: {name} {shape}, expected ({d},)")
    return found
