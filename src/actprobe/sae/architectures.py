"""encode() of each SAE architecture, on one block of latents.

Pre-activations p = x·W_enc come from the product; what is done with them is written here once, in
operators that NumPy arrays and torch tensors share. Every architecture answers with the entries
that can be non-zero and their values, so that nothing dense leaves a block.

  standard   relu(p + b_enc)
  jumprelu   p + b_enc where it exceeds max(threshold, 0); Rajamanoharan et al. 2024, section 3
  gated      p·exp(r_mag) + b_mag where p + b_gate > 0, if positive; Rajamanoharan et al. 2024a
  topk       relu of the k largest p + b_enc; Gao et al. 2024, section 2.3
  abstopk    the k largest in magnitude of p + b_enc, signs kept

With `rescale`, pre-activations are multiplied by the decoder's row norms before the choice.
Transcoders encode like the architecture they are built on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.errors import BadInput
from actprobe.sae.formats import Sae

NEEDS = {
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "topk": ("b_enc",),
    "abstopk": ("b_enc",),
}
TOP_K = ("topk", "abstopk")


def needs(sae: Sae) -> list[str]:
    """The tensors that encoding reads, W_enc first; W_dec is none of them."""
    names = ["W_enc", *NEEDS[sae.architecture]]
    if sae.threshold is not None:
        names.remove("threshold")
    return names + ["b_dec"] * sae.subtract_b_dec


def check_folding(sae: Sae) -> None:
    """Raise BadInput where folding decoder norms would change which latents are chosen."""
    if sae.architecture in TOP_K and not sae.rescale:
        raise BadInput(
            f"{sae.weights}: fold_decoder_norm would change the top k of a {sae.architecture} SAE "
            "without rescale_acts_by_decoder_norm"
        )


def prepare(x: NDArray[np.float32], sae: Sae, b_dec: NDArray | None) -> NDArray[np.float32]:
    """What the encoder sees of activations [n, d_in]: normalised, scaled, b_dec subtracted."""
    center, scale = normalisation(x, sae)
    if sae.normalize != "none":
        x = (x - center) / scale
    if sae.input_scale != 1:
        x = x * np.float32(sae.input_scale)
    return x if b_dec is None else x - b_dec


def normalisation(x: NDArray[np.float32], sae: Sae) -> tuple[NDArray, NDArray]:
    """Per row, what is subtracted and what is then divided by, [n, 1] each.

    layer_norm: mean, and standard deviation (n - 1) + 1e-5; constant_norm_rescale: the norm of a
    row becomes sqrt(d). As SAELens does at run time.
    """
    if sae.normalize == "layer_norm":
        center = x.mean(axis=1, keepdims=True)
        return center, (x - center).std(axis=1, ddof=1, keepdims=True) + np.float32(1e-5)
    if sae.normalize == "constant_norm_rescale":
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        return np.zeros_like(norm), norm / np.float32(np.sqrt(x.shape[1]))
    return np.zeros((len(x), 1), x.dtype), np.ones((len(x), 1), x.dtype)


@dataclass(frozen=True)
class Rule:
    """What becomes of pre-activations p [rows, block], which it may overwrite.

    vectors: float32 arrays [F]; `fire(p, slices of the block)` returns (chosen, value). chosen is
    a mask of the entries kept with that value, or, for a top k, the size by which a row's k
    largest are chosen among those with size > 0. scale: [F], multiplies kept values (folded
    decoder norms), or None.
    """

    vectors: dict[str, NDArray[np.float32]]
    fire: Callable[[Any, dict[str, Any]], tuple[Any, Any]]
    scale: NDArray[np.float32] | None = None
    k: int | None = None


def rule(
    sae: Sae,
    vector: Callable[[str], NDArray[np.float32]],
    norms: NDArray[np.float32] | None = None,
    fold: bool = False,
) -> Rule:
    """The rule of an SAE. `vector` reads a tensor; norms: of decoder rows, where they matter."""
    if sae.architecture == "gated":
        v = {"gate": vector("b_gate"), "factor": np.exp(vector("r_mag")), "bias": vector("b_mag")}
        return Rule(v, _gated, norms if fold else None)
    v = {"bias": vector("b_enc")}
    if sae.architecture in TOP_K:
        if sae.rescale:
            assert norms is not None
            v["norm"] = norms  # folded or not, these are the values
        return Rule(v, _magnitude if sae.architecture == "abstopk" else _value, k=sae.k)
    if sae.architecture == "jumprelu":
        threshold = vector("threshold") if sae.threshold is None else np.float32(sae.threshold)
        v["floor"] = np.maximum(np.broadcast_to(threshold, sae.d_sae), np.float32(0))
        return Rule(v, _above_threshold, norms if fold else None)
    return Rule(v, _positive, norms if fold else None)


def _positive(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p += v["bias"]
    return p > 0, p


def _above_threshold(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p += v["bias"]
    return p > v["floor"], p


def _gated(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    magnitude = p * v["factor"]  # one product serves both: exp(r_mag) only scales columns
    magnitude += v["bias"]
    p += v["gate"]
    return (p > 0) & (magnitude > 0), magnitude


def _value(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p += v["bias"]
    if "norm" in v:
        p *= v["norm"]
    return p, p


def _magnitude(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p, _ = _value(p, v)
    return abs(p), p
