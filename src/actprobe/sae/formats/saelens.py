"""SAELens: cfg.json of version 6 (what it was trained on stands in `metadata`) and older (flat)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.sae.formats.names import said_by
from actprobe.sae.formats.settings import Settings, read_json
from actprobe.sae.formats.spec import Sae

_ARCHITECTURES = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    **{a: a for a in ("standard", "jumprelu", "gated", "topk", "abstopk")},
}
_TRAINING = ("batchtopk", "matryoshka_batchtopk")
_NORMALIZE = ("none", "layer_norm", "constant_norm_rescale")
_UNFOLDED = ("expected_average_only_in", "covariance_whitening")
_IN_HEADS = ("fold_value_biases", "refactor_factored_attn_matrices")  # change hook_z alone


def read(folder: Path, weights: Path) -> Sae:
    """The SAE of a SAELens folder."""
    cfg = read_json(folder / "cfg.json")
    meta = cfg.part("metadata")
    flat = "metadata" not in cfg  # before version 6
    architecture = _architecture(cfg, flat)
    topk = "topk" in architecture
    transcoder = architecture.endswith("transcoder")
    cfg.dtype()
    subtract = cfg.flag("apply_b_dec_to_input", True)
    rescale = cfg.flag("rescale_acts_by_decoder_norm", False)
    return Sae(
        weights=str(weights),
        architecture=_ARCHITECTURES[architecture],
        d_in=cfg.whole("d_in"),
        d_sae=cfg.whole("d_sae"),
        k=_k(cfg) if topk else None,
        subtract_b_dec=subtract and not transcoder,
        normalize=_normalize(cfg),
        rescale="values" if rescale and topk else "none",
        transcoder=transcoder,
        **_place(cfg, meta, folder, flat),
    )


def _architecture(cfg: Settings, flat: bool) -> str:
    named: str = cfg.word("architecture", "standard")
    key = "activation_fn" if "activation_fn" in cfg else "activation_fn_str"
    activation = cfg.word(key, "relu")
    if activation not in ("relu", "topk"):
        raise cfg.unsupported(key, "; known are relu and topk")
    if activation == "topk" and flat:
        named = "topk"
    if named in _TRAINING:
        raise cfg.unsupported("architecture", " as saved for training: its choice of latents depends "
                              "on the batch; save it for inference (it becomes jumprelu)")  # fmt: skip
    if named not in _ARCHITECTURES:
        raise cfg.unsupported("architecture", f"; known are {', '.join(_ARCHITECTURES)}")
    return named


def _k(cfg: Settings) -> int:
    old = cfg.part("activation_fn_kwargs")
    k: int = old.whole("k") if "k" in old and "k" not in cfg else cfg.whole("k")
    return k


def _normalize(cfg: Settings) -> str:
    value = cfg.raw("normalize_activations")
    if value is None or value is False:
        return "none"
    if value is True or value in _UNFOLDED:
        raise cfg.unsupported("normalize_activations", ": it has to be folded into the weights first "
                              "(SAELens does so in from_pretrained)")  # fmt: skip
    if value not in _NORMALIZE:
        raise cfg.unsupported("normalize_activations", f"; known are {', '.join(_NORMALIZE)}")
    return str(value)


def _place(cfg: Settings, meta: Settings, folder: Path, flat: bool) -> dict[str, Any]:
    """What it was trained on, wherever the file says it: in `metadata`, beside it, in older words."""

    def said(key: str, kind: str = "word") -> Any:
        """The value of a key in either mapping. Raises BadInput for two that differ."""
        found = [getattr(s, kind)(key) for s in (meta, cfg) if key in s]
        if any(v != found[0] for v in found):
            raise BadInput(
                f"{cfg.path}: metadata.{key} is {found[0]!r} and {key} is {found[1]!r}; expected one "
                "of them (correct it, or fetch the file again)"
            )
        return found[0] if found else None

    def first(*keys: str, kind: str = "word") -> Any:
        return next((v for v in (said(k, kind) for k in keys) if v is not None), None)

    hook = first("hook_name", "hook_point")
    layer = first("hook_layer", "hook_point_layer", kind="raw")
    if layer is not None and (not isinstance(layer, int) or isinstance(layer, bool) or layer < 0):
        raise cfg.refusal("hook_layer", "a layer's number")
    if hook and "{layer}" in hook:
        hook = hook.replace("{layer}", str(layer))
    if hook is None and layer is None:
        hook, layer = said_by(folder)
    reshape = cfg.word("reshape_activations", "none")
    if reshape not in ("none", "hook_z"):
        raise cfg.unsupported("reshape_activations", "; known are none and hook_z")
    head = first("hook_head_index", "hook_point_head_index", kind="raw")
    bos = said("prepend_bos", "flag")
    center, unlike = _processing(meta, cfg, hook)
    if reshape == "hook_z" and hook and not hook.endswith("_z"):
        unlike += (
            f"its activations are heads side by side (reshape_activations hook_z), {hook} not",
        )
    return {
        "model": said("model_name"),
        "hook": hook,
        "also": tuple(h for h in (said("hf_hook_name"),) if h),
        "layer": layer,
        "head": head,
        "prepend_bos": True if bos is None and flat else bos,  # SAELens' rule before version 6
        "context_size": first("context_size", kind="whole"),
        "positions": _positions(said("seqpos_slice", "raw")),
        "center": center,
        "unlike": unlike,
    }


def _positions(value: Any) -> tuple[int | None, ...] | None:
    """The slice of positions that it was trained on; None for all of them."""
    if not isinstance(value, (list, tuple)):
        return None
    plain = tuple(v if isinstance(v, int) else None for v in value)
    return plain if any(plain) else None


def _processing(meta: Settings, cfg: Settings, hook: str | None) -> tuple[bool, tuple[str, ...]]:
    """Whether TransformerLens centred what is written to the residual stream, and what else it did
    to the model that changes these activations."""
    kwargs: dict[str, Any] = {}
    for settings in (cfg, meta):
        part = settings.part("model_from_pretrained_kwargs")
        kwargs |= {k: part.flag(k) for k in ("center_writing_weights", *_IN_HEADS) if k in part}
    center = kwargs.pop("center_writing_weights", False)
    heads = hook is not None and hook.endswith("_z")
    unlike = tuple(f"its model was loaded with {k}" for k, v in kwargs.items() if v and heads)
    inside = hook is not None and (heads or ".mlp.hook_" in hook or "normalized" in hook)
    return bool(center and not inside), unlike
