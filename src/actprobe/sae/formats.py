"""What an SAE is, read from the small files beside its weights, for each format on disk.

Every format ends in one `Sae`. A new one needs a function that reads its config, an entry in
`FORMATS`, and its tensor names in `NAMES`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.errors import BadInput, bad_file
from actprobe.sae.tensors import Tensor, tensors


@dataclass(frozen=True)
class Sae:
    """An SAE without its weights.

    weights: the file that holds them. architecture: one of `architectures.NEEDS`. d_in: width of
    the activations, d_sae: number of latents. k: of a top-k. subtract_b_dec: from the input.
    normalize: of the input (none, layer_norm, constant_norm_rescale). rescale: pre-activations
    times the decoder's row norms. threshold: one for all latents, where the file holds none.
    input_scale s and bias_scale c: x is encoded as s·x and decoded as z·W_dec / s + c·b_dec.
    transcoder: predicts another site, so the reconstruction says nothing about the input.
    model, hook: what it was trained on, as its config says, where it does.
    """

    weights: str
    architecture: str
    d_in: int
    d_sae: int
    k: int | None = None
    subtract_b_dec: bool = False
    normalize: str = "none"
    rescale: bool = False
    threshold: float | None = None
    input_scale: float = 1.0
    bias_scale: float = 1.0
    transcoder: bool = False
    model: str | None = None
    hook: str | None = None


# Tensor -> names it goes by, and whether a matrix with that name has the latents first.
NAMES: dict[str, dict[str, bool]] = {
    "W_enc": {"W_enc": False, "w_enc": False, "encoder.weight": True},
    "W_dec": {"W_dec": True, "w_dec": True, "decoder.weight": False},
    "b_enc": dict.fromkeys(("b_enc", "encoder.bias"), True),
    "b_dec": dict.fromkeys(("b_dec", "bias", "decoder_bias", "decoder.bias"), True),
    "threshold": {"threshold": True},
    "b_gate": dict.fromkeys(("b_gate", "gate_bias"), True),
    "b_mag": dict.fromkeys(("b_mag", "mag_bias"), True),
    "r_mag": {"r_mag": True},
    "scaling_factor": {"scaling_factor": True},
}


def detect(path: Path) -> str:
    """The format of a local SAE. Raises BadInput listing what was looked for."""
    for name, fmt in FORMATS.items():
        if fmt.at(path) is not None:
            return name
    looked = ", ".join(f"{' + '.join(f.files)} ({name})" for name, f in FORMATS.items())
    found = sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else []
    there = f"it holds {', '.join(found)}" if found else "there is no such folder or file"
    raise BadInput(f"{path}: no SAE found: {there}; expected one of {looked}")


def describe(path: str | Path, fmt: str = "auto") -> Sae:
    """The SAE in a local folder or file. Raises BadInput naming the file and what is wrong."""
    path = Path(path)
    name = detect(path) if fmt == "auto" else fmt
    folder = FORMATS[name].at(path)
    if folder is None:
        raise BadInput(
            f"{path}: not in format {name}: expected {' and '.join(FORMATS[name].files)}"
        )
    try:
        found = FORMATS[name].read(folder)
    except (KeyError, TypeError) as e:
        raise BadInput(f"{folder}: the config of this {name} SAE has no usable {e}") from e
    except (ValueError, AttributeError, ZeroDivisionError) as e:
        raise BadInput(f"{folder}: the config of this {name} SAE cannot be used: {e}") from e
    scales = (found.input_scale, found.bias_scale, found.threshold or 0.0)
    if not all(map(math.isfinite, scales)) or found.input_scale <= 0:
        raise BadInput(
            f"{folder}: the config of this {name} SAE gives no usable scale: it would be "
            f"{found.input_scale} of the input, {found.bias_scale} of the bias, threshold "
            f"{found.threshold}"
        )
    return found


@dataclass(frozen=True)
class Format:
    """Files that identify a format (the last one holds the weights), and its config reader."""

    files: tuple[str, ...]
    read: Callable[[Path], Sae]

    def among(self, names: Collection[str], file: str = "") -> list[str] | None:
        """The files of an SAE of this format among the names below a folder (of the hub), its weights
        first; None where there is none. file: the weights that a source names."""
        *others, weights = self.files
        if (file and file != weights) or not {*others, weights} <= set(names):
            return None
        return [weights, *others]

    def at(self, path: Path) -> Path | None:
        """The SAE's folder when all files are there; `path` may be the weights file itself."""
        if path.is_file() and str(path).endswith(self.files[-1]):
            path = Path(str(path).removesuffix(self.files[-1]))
        return path if all((path / f).is_file() for f in self.files) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise bad_file(path, e, "cannot be read as JSON: ") from None


def _refuse(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: not supported: {what}")


def _saelens(folder: Path) -> Sae:
    """SAELens cfg.json, of version 6 (metadata) and older (flat)."""
    path = folder / "cfg.json"
    cfg = _json(path)
    meta = cfg.get("metadata") or {}
    version = cfg.get("sae_lens_version") or meta.get("sae_lens_version") or "0"
    if int(re.match(r"\d*", version)[0] or 0) < 6:  # type: ignore[index]
        cfg, meta = _saelens_old(cfg, path)
    architecture = cfg["architecture"]
    transcoder = architecture.endswith("transcoder")
    known = {
        "transcoder": "standard",
        "skip_transcoder": "standard",
        "jumprelu_transcoder": "jumprelu",
        "jumprelu_skip_transcoder": "jumprelu",
        **{a: a for a in ("standard", "jumprelu", "gated", "topk", "abstopk")},
    }
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        raise _refuse(path, f"{architecture} as saved for training: its choice of latents depends "
                      "on the batch; save it for inference (it becomes jumprelu)")  # fmt: skip
    if architecture not in known:
        raise _refuse(path, f"architecture {architecture!r}; known are {', '.join(known)}")
    normalize = cfg.get("normalize_activations") or "none"
    if normalize in ("expected_average_only_in", "covariance_whitening"):
        raise _refuse(path, f"normalize_activations {normalize}: it has to be folded into the "
                      "weights first (SAELens does so in from_pretrained)")  # fmt: skip
    if normalize not in ("none", "layer_norm", "constant_norm_rescale"):
        raise _refuse(path, f"normalize_activations {normalize!r}")
    return Sae(
        weights=str(folder / "sae_weights.safetensors"),
        architecture=known[architecture],
        d_in=int(cfg["d_in"]),
        d_sae=int(cfg["d_sae"]),
        k=int(cfg["k"]) if "topk" in architecture else None,
        subtract_b_dec=bool(cfg.get("apply_b_dec_to_input", True)) and not transcoder,
        normalize=normalize,
        rescale=bool(cfg.get("rescale_acts_by_decoder_norm", False)),
        transcoder=transcoder,
        model=meta.get("model_name"),
        hook=meta.get("hook_name"),
    )


def _saelens_old(cfg: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    cfg = {"architecture": "standard", **cfg}
    kwargs = cfg.get("activation_fn_kwargs") or {}
    activation = cfg.get("activation_fn") or cfg.get("activation_fn_str") or "relu"
    if activation not in ("relu", "topk"):
        raise _refuse(path, f"activation_fn {activation!r}")
    if activation == "topk":
        cfg |= {"architecture": "topk", "k": kwargs["k"]}
    if isinstance(cfg.get("normalize_activations"), bool):
        average = "expected_average_only_in"
        cfg["normalize_activations"] = average if cfg["normalize_activations"] else "none"
    hook = cfg.get("hook_name", cfg.get("hook_point"))
    return cfg, {"model_name": cfg.get("model_name"), "hook_name": hook}


def _gemma_scope(folder: Path) -> Sae:
    """Gemma Scope `params.npz`: layer, width and model stand in the path alone.

    Embedding SAEs (`embedding/width_…`) were trained on inputs divided by sqrt(d).
    """
    path = folder / "params.npz"
    found = tensors(path)
    d_in, d_sae = matrix_shape(found, "W_enc", path)
    layer = _layer(folder)
    embedding = layer == "embedding"
    kind = re.search(r"gemma-scope-([0-9]+b-[pi]t)-(res|mlp|att|transcoders)", str(folder))
    hooks = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z",
             "transcoders": "ln2.hook_normalized"}  # fmt: skip
    hook = f"blocks.{layer}.{hooks[kind[2]]}" if layer and kind else None
    return Sae(
        str(path), "jumprelu", d_in, d_sae,
        input_scale=1 / math.sqrt(d_in) if embedding else 1.0,
        transcoder=kind is not None and kind[2] == "transcoders",
        model=f"gemma-2-{kind[1].removesuffix('-pt')}" if kind else None,
        hook="hook_embed" if embedding else hook,
    )  # fmt: skip


def _gemma_scope_2(folder: Path) -> Sae:
    path = folder / "params.safetensors"
    cfg = _json(folder / "config.json")
    if cfg.get("architecture") != "jump_relu":
        raise _refuse(folder / "config.json", f"architecture {cfg.get('architecture')!r}")
    d_in, d_sae = matrix_shape(tensors(path), "W_enc", path)
    layer, parts = _layer(folder), " ".join(folder.parts[-3:])
    sites = {"transcoder": "hook_mlp_in", "resid_post": "hook_resid_post",
             "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z"}  # fmt: skip
    kind = next((word for word in sites if word in parts), None)
    model = (cfg.get("model_name") or "").replace("-v3", "-3")  # the hub says gemma-3
    return Sae(
        str(path), "jumprelu", d_in, d_sae,
        transcoder=kind == "transcoder",
        model=(model.removesuffix("-pt") if "270m" in model else model) or None,
        hook=f"blocks.{layer}.{sites[kind]}" if layer and kind else None,
    )  # fmt: skip


def _layer(folder: Path) -> str | None:
    """The layer, or "embedding", in a Gemma Scope path; folders further up may speak of others."""
    found = [m for part in folder.parts[-3:] if (m := re.match(r"layer_(\d+)|embedding$", part))]
    return found[-1][1] or found[-1][0] if found else None


def _llama_scope(folder: Path) -> Sae:
    """Llama Scope: inputs were scaled to norm sqrt(d); the threshold is on the scaled side."""
    path = folder / "hyperparams.json"
    cfg = _json(path)
    plain = {"act_fn": "jumprelu", "norm_activation": "dataset-wise", "use_glu_encoder": False,
             "apply_decoder_bias_to_pre_encoder": False}  # fmt: skip
    for key, value in plain.items():
        if cfg.get(key, value) != value:
            raise _refuse(path, f"{key} {cfg[key]!r}")
    scale = math.sqrt(cfg["d_model"]) / cfg["dataset_average_activation_norm"]["in"]
    hook = cfg.get("hook_point_in")
    return Sae(
        str(folder / "checkpoints" / "final.safetensors"),
        "jumprelu", int(cfg["d_model"]), int(cfg["d_sae"]),
        threshold=float(cfg["jump_relu_threshold"]) * scale,
        input_scale=scale,
        bias_scale=1 / scale,
        transcoder=cfg.get("hook_point_out", hook) != hook,
        model=cfg.get("model_name"),
        hook=hook,
    )  # fmt: skip


def _sparsify(folder: Path) -> Sae:
    path = folder / "cfg.json"
    cfg = _json(path)
    activation = cfg.get("activation", "topk")
    if activation != "topk":
        raise _refuse(path, f"activation {activation!r}")
    transcoder = bool(cfg.get("transcode", False))
    run = folder.parent / "config.json"
    module = re.search(r"(?:^|\.)(?:(?:layers|h)\.\d|embed_|wte)", folder.name)
    hook = folder.name if module else None  # a folder that was renamed says nothing
    return Sae(
        str(folder / "sae.safetensors"),
        "abstopk" if cfg.get("signed") else "topk",
        int(cfg["d_in"]),
        int(cfg.get("num_latents") or cfg["d_in"] * cfg["expansion_factor"]),
        k=int(cfg["k"]),
        subtract_b_dec=not transcoder,
        transcoder=transcoder,
        model=_json(run).get("model") if run.is_file() else None,
        hook=f"{hook}.input" if hook and transcoder else hook,
    )


# dict_class -> architecture, and whether b_dec is subtracted from the input.
_DICTIONARIES = {
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", False),
    "GatedAutoEncoder": ("gated", True),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
}


def _dictionary_learning(folder: Path) -> Sae:
    path = folder / "config.json"
    trainer = _json(path)["trainer"]
    if trainer["dict_class"] not in _DICTIONARIES:
        raise _refuse(path, f"dict_class {trainer['dict_class']!r}")
    architecture, subtract = _DICTIONARIES[trainer["dict_class"]]
    layer, module = trainer.get("layer"), trainer.get("submodule_name") or "resid_post"
    if named := re.search(r"resid_pre|resid_mid|mlp_in|mlp_out|attn_out", module):
        hook = f"blocks.{layer}.hook_{named[0]}"
    else:
        hook = f"layers.{layer}" if "resid" in module else f"layers.{layer}.{module}"
    return Sae(
        str(folder / "ae.pt"), architecture,
        int(trainer["activation_dim"]), int(trainer["dict_size"]),
        k=int(trainer["k"]) if architecture == "topk" else None,
        subtract_b_dec=subtract,
        model=trainer.get("lm_name"),
        hook=None if layer is None else hook,
    )  # fmt: skip


FORMATS = {
    "saelens": Format(("cfg.json", "sae_weights.safetensors"), _saelens),
    "gemma_scope": Format(("params.npz",), _gemma_scope),
    "gemma_scope_2": Format(("config.json", "params.safetensors"), _gemma_scope_2),
    "llama_scope": Format(("hyperparams.json", "checkpoints/final.safetensors"), _llama_scope),
    "sparsify": Format(("cfg.json", "sae.safetensors"), _sparsify),
    "dictionary_learning": Format(("config.json", "ae.pt"), _dictionary_learning),
}


def find(found: Mapping[str, Tensor], name: str, path: str | Path) -> tuple[str, bool]:
    """The name that a tensor goes by in a file, and whether the latents come first in it.

    Raises BadInput when it is not there.
    """
    for alias, latents_first in NAMES[name].items():
        if alias in found:
            return alias, latents_first
    raise BadInput(f"{path}: no tensor {name}; it holds {', '.join(sorted(found)) or 'nothing'}")


def matrix_shape(found: Mapping[str, Tensor], name: str, path: str | Path) -> tuple[int, int]:
    """(d, F) of a matrix whichever way round it is stored."""
    alias, latents_first = find(found, name, path)
    shape = found[alias].shape
    if len(shape) != 2:
        raise BadInput(f"{path}: {alias} has shape {list(shape)}, expected a matrix")
    return (shape[1], shape[0]) if latents_first else (shape[0], shape[1])
