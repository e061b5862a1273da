"""Llama Scope, and SAEs of Language-Model-SAEs 2 (lm-saes, llamascopium), which R1-Distill uses."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from actprobe.base.errors import BadInput
from actprobe.sae.formats.layouts import has
from actprobe.sae.formats.settings import Settings, read_json
from actprobe.sae.formats.spec import Sae
from actprobe.sae.tensors import SIZES, Tensor, tensors

_NORM = "dataset_average_activation_norm"
_NOT_ALONE = {
    "crosscoder": "a crosscoder: its latents are sums over all of its hook points, so that none can "
    "be encoded alone",
    "clt": "a cross-layer transcoder with all layers in one file; save the layer that is wanted as "
    "`sae_type: sae`",
    "lorsa": "sparse attention: its latents need the whole sequence",
    "molt": "a mixture of linear transforms, which has no latents of one direction each",
}


def read_llama_scope(folder: Path, weights: Path) -> Sae:
    """Llama Scope: inputs were scaled to norm sqrt(d); the threshold is on the scaled side."""
    cfg = read_json(folder / "hyperparams.json")
    plain = {"act_fn": "jumprelu", "norm_activation": "dataset-wise", "use_glu_encoder": False,
             "apply_decoder_bias_to_pre_encoder": False}  # fmt: skip
    for key, value in plain.items():
        if key in cfg and cfg.raw(key) != value:
            raise cfg.unsupported(key, f"; known is {value}")
    d_in = cfg.whole("d_model")
    scale = math.sqrt(d_in) / cfg.part(_NORM).number("in", above=0)
    hook = cfg.word("hook_point_in")
    return Sae(
        str(weights), "jumprelu", d_in, cfg.whole("d_sae"),
        threshold=cfg.number("jump_relu_threshold") * scale,
        input_scale=scale,
        bias_scale=1 / scale,
        transcoder=cfg.word("hook_point_out", hook) != hook,
        model=cfg.word("model_name"),
        hook=hook,
        prepend_bos=True,
    )  # fmt: skip


def read(folder: Path, weights: Path) -> Sae:
    """lm-saes 2: `W_E, b_E, W_D, b_D`, or the `encoder.weight, …` of its first form.

    With sparsity_include_decoder_norm latents are chosen by their pre-activation times the norm of
    their decoder row, and keep the plain value. Latents are on the scale of normalised activations.
    """
    cfg = read_json(folder / "config.json")
    kind = cfg.word("sae_type", "sae")
    if kind != "sae":
        why = _NOT_ALONE.get(kind, "another kind of dictionary; known is sae")
        raise cfg.unsupported("sae_type", f", {why}")
    for key in ("use_glu_encoder", "apply_decoder_bias_to_pre_encoder"):
        if cfg.flag(key, False):
            raise cfg.unsupported(key, "; known is false")
    cfg.dtype()
    d_in = cfg.whole("d_model")
    activation = cfg.word("act_fn", "relu")
    architecture = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}.get(activation)
    if architecture is None:
        raise cfg.unsupported("act_fn", ": its choice of latents depends on the batch; convert it to "
                              "jumprelu" if "batch" in activation else "; known are relu, jumprelu "
                              "and topk")  # fmt: skip
    hook = cfg.word("hook_point_in")
    found = tensors(weights)
    scale, normalize = _scale(cfg, hook, d_in, weights, found)
    return Sae(
        str(weights), architecture, d_in, _width(cfg, d_in),
        k=cfg.whole("top_k") if architecture == "topk" else None,
        input_scale=scale,
        bias_scale=1 / scale,
        normalize=normalize,
        decoder_bias=cfg.flag("use_decoder_bias", True),
        rescale="choice" if cfg.flag("sparsity_include_decoder_norm", True) else "none",
        log_threshold=architecture == "jumprelu" and has(found, "log_threshold"),
        transcoder=cfg.word("hook_point_out", hook) != hook,
        model=cfg.word("model_name"),
        hook=hook,
    )  # fmt: skip


def _width(cfg: Settings, d_in: int) -> int:
    if "d_sae" in cfg:
        return int(cfg.whole("d_sae"))
    return max(1, int(d_in * cfg.number("expansion_factor", above=0)))


def _scale(
    cfg: Settings, hook: str | None, d_in: int, weights: Path, found: dict[str, Tensor]
) -> tuple[float, str]:
    """The factor of the input, and its run-time normalisation."""
    how = cfg.word("norm_activation", "dataset-wise")
    if how == "inference":
        return 1.0, "none"
    if how == "token-wise":
        return 1.0, "constant_norm_rescale"
    if how != "dataset-wise":
        raise cfg.unsupported("norm_activation", ": the norm of a batch depends on the batch")
    name = f"{_NORM}.{hook}"
    if name not in found:
        raise BadInput(
            f"{weights}: no tensor {name}, which norm_activation dataset-wise needs; it holds "
            f"{', '.join(sorted(found)[:20])} (save it with fold_activation_scale=True)"
        )
    norm = _scalar(weights, found[name])
    if not (math.isfinite(norm) and norm > 0):
        raise BadInput(f"{weights}: {name} is {norm}; expected a norm above 0 (fetch it again)")
    return math.sqrt(d_in) / norm, "none"


def _scalar(path: Path, t: Tensor) -> float:
    """A tensor of one number."""
    kinds = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f"}
    if t.dtype not in kinds or math.prod(t.shape) != 1:
        raise BadInput(f"{path}: the average norm is {t.dtype} {list(t.shape)}; expected one float")
    with open(path, "rb") as f:
        f.seek(t.offset)
        raw = f.read(SIZES[t.dtype])
    if t.dtype == "BF16":
        raw = b"\0\0" + raw  # the upper half of a float32
    return float(struct.unpack(kinds[t.dtype], raw)[0])
