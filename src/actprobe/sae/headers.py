"""Whether a weights file holds the tensors that an SAE needs, judged from its headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from actprobe.base.errors import BadInput
from actprobe.sae.formats import NAMES, Sae, find
from actprobe.sae.tensors import SIZES, Tensor

NEEDS = {
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "topk": ("b_enc",),
    "abstopk": ("b_enc",),
}
TOP_K = ("topk", "abstopk")

# Of a tensor that no reader here knows: it may well change the codes.
_TELLING = re.compile(r"mean|std|scal|norm|glu|gate|mag|temperature|whiten|rotat")
_KNOWN = re.compile(r"dataset_average_activation_norm\..*|target_rms|finetuning_scaling_factor")
AWAY = " (fetch it again, or take the file it was published in)"


def require_tensors(sae: Sae, found: Mapping[str, Tensor]) -> None:
    """Raise BadInput when a tensor that the architecture or the reconstruction needs is missing, is
    there twice, has another shape than the config says, or a dtype that is not a float.

    found: the tensors of `sae.weights`; those of files that cannot be read in place have offset -1.
    """
    for name in required(sae):
        _require(sae, found, name)


def odd(sae: Sae, found: Mapping[str, Tensor]) -> list[str]:
    """Tensors that this SAE does not use and whose names say that they may change its codes."""
    known = {alias + sae.suffix for names in NAMES.values() for alias in names}
    other = ("b_gate", "b_mag", "r_mag") if sae.architecture != "gated" else ()
    known -= {alias + sae.suffix for n in other for alias in NAMES[n]}
    return [n for n in sorted(found) if n not in known and _TELLING.search(n)
            and not _KNOWN.fullmatch(n)]  # fmt: skip


def needs(sae: Sae) -> list[str]:
    """The tensors that encoding reads, W_enc first; W_dec is none of them."""
    names = ["W_enc", *NEEDS[sae.architecture]]
    if sae.threshold is not None:
        names.remove("threshold")
    elif sae.log_threshold:
        names[names.index("threshold")] = "log_threshold"
    return names + ["b_dec"] * sae.subtract_b_dec


def required(sae: Sae) -> list[str]:
    """The tensors that encoding and reconstruction read."""
    decoder = [] if sae.transcoder else ["W_dec", *(["b_dec"] if sae.decoder_bias else [])]
    norms = ["W_dec"] if sae.rescale != "none" else []
    return list(dict.fromkeys([*needs(sae), *decoder, *norms]))


def _require(sae: Sae, found: Mapping[str, Tensor], name: str) -> None:
    alias, latents_first = find(found, name, sae.weights, sae.layout, sae.suffix)
    t = found[alias]
    if t.dtype not in SIZES:
        raise BadInput(f"{sae.weights}: {alias} is {t.dtype}; expected {', '.join(SIZES)}{AWAY}")
    matrix = (sae.d_in, sae.d_sae)
    shape = {"W_enc": matrix, "W_dec": matrix, "b_dec": (sae.d_in,)}.get(name, (sae.d_sae,))
    shape = shape[::-1] if latents_first else shape
    scalar = t.shape in ((), (1,)) and name == "threshold"
    if t.shape != shape and not scalar:
        turned = ", the other way round" * (t.shape == shape[::-1] and len(shape) == 2)
        raise BadInput(
            f"{sae.weights}: {alias} has shape {list(t.shape)}, expected {list(shape)}{turned}{AWAY}"
        )
