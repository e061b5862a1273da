"""encode() of each SAE architecture, on one block of latents.

Pre-activations p = x·W_enc come from the product; what is done with them is written here once, in
operators that NumPy arrays and torch tensors share. Every architecture answers with the entries
that can be non-zero and their values, so that nothing dense leaves a block.

  standard   relu(p + b_enc)
  jumprelu   p + b_enc where it exceeds max(threshold, 0); Rajamanoharan et al. 2024, section 3
  gated      p·exp(r_mag) + b_mag where p + b_gate > 0, if positive; Rajamanoharan et al. 2024a
  topk       relu of the k largest p + b_enc; Gao et al. 2024, section 2.3
  abstopk    the k largest in magnitude of p + b_enc, signs kept

With `rescale`, pre-activations are multiplied by the decoder's row norms before the choice; the
latents are these products ("values") or what they were before ("choice"). Transcoders encode like
the architecture they are built on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.sae.formats import Sae
from actprobe.sae.headers import TOP_K


def check_folding(sae: Sae) -> None:
    """Raise BadInput where folding decoder norms would change which latents are chosen."""
    if sae.architecture in TOP_K and sae.rescale == "none":
        raise BadInput(
            f"{sae.weights}: fold_decoder_norm would change the top k of a {sae.architecture} SAE "
            "whose latents are chosen without decoder norms"
        )


def prepare(
    x: NDArray[np.float32], sae: Sae, b_dec: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """What the encoder sees of activations [n, d_in]: normalised, scaled, b_dec subtracted."""
    if sae.normalize != "none" or sae.center:
        center, scale = normalisation(x, sae)
        x = (x - center) / scale
    if sae.input_scale != 1:
        x = x * np.float32(sae.input_scale)
    return x if b_dec is None else x - b_dec


def normalisation(
    x: NDArray[np.float32], sae: Sae
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per row, what is subtracted and what is then divided by, [n, 1] each.

    layer_norm: mean, and standard deviation (n - 1) + 1e-5; constant_norm_rescale: the norm of a
    row becomes sqrt(d). As SAELens does at run time.
    """
    center = np.zeros((len(x), 1), x.dtype)
    if sae.center or sae.normalize == "layer_norm":
        center = x.mean(axis=1, keepdims=True)
    if sae.normalize == "layer_norm":
        return center, (x - center).std(axis=1, ddof=1, keepdims=True) + np.float32(1e-5)
    if sae.normalize == "constant_norm_rescale":
        norm = np.linalg.norm(x - center, axis=1, keepdims=True)
        return center, norm / np.float32(np.sqrt(x.shape[1]))
    return center, np.ones((len(x), 1), x.dtype)


@dataclass(frozen=True)
class Rule:
    """What becomes of pre-activations p [rows, block], which it may overwrite.

    vectors: float32 arrays [F]; `fire(p, slices of the block)` returns (chosen, value). chosen is
    a mask of the entries kept with that value, or, for a top k, the size by which a row's k
    largest are chosen among those with size > 0. scale: [F], multiplies kept values, or None;
    multiplied: by what the latents that come out are larger than the ones W_dec speaks of, or None.
    signed: a row without k positive values would keep negative ones, which is not done here.
    """

    vectors: dict[str, NDArray[np.float32]]
    fire: Callable[[Any, dict[str, Any]], tuple[Any, Any]]
    scale: NDArray[np.float32] | None = None
    multiplied: NDArray[np.float32] | None = None
    k: int | None = None
    signed: bool = False


def rule(
    sae: Sae,
    vector: Callable[[str], NDArray[np.float32]],
    norms: NDArray[np.float32] | None = None,
    fold: bool = False,
) -> Rule:
    """The rule of an SAE. `vector` reads a tensor; norms: of the rows of W_dec, where they matter;
    fold: latents are multiplied by the norms of the decoder that speaks to the activations,
    W_dec / input_scale.
    """
    folded: NDArray[np.float32] | None = None
    if fold:
        assert norms is not None
        folded = (np.maximum(norms, _LEAST) / np.float32(sae.input_scale)).astype(np.float32)
    if sae.architecture in TOP_K:
        return _top(sae, vector("b_enc"), norms, folded)
    if sae.architecture == "gated":
        v = {"gate": vector("b_gate"), "factor": np.exp(vector("r_mag")), "bias": vector("b_mag")}
        return Rule(v, _gated, folded, folded)
    v = {"bias": vector("b_enc")}
    if sae.architecture == "jumprelu":
        v["floor"] = np.maximum(_threshold(sae, vector), np.float32(0))
        if sae.rescale == "choice":
            assert norms is not None
            v["norm"] = norms
        return Rule(v, _above_threshold, folded, folded)
    return Rule(v, _positive, folded, folded)


_LEAST = np.float32(1e-8)  # the least norm that latents are multiplied or divided by, as in SAELens


def _top(
    sae: Sae,
    bias: NDArray[np.float32],
    norms: NDArray[np.float32] | None,
    folded: NDArray[np.float32] | None,
) -> Rule:
    v = {"bias": bias}
    scale: NDArray[np.float32] | None = None
    multiplied: NDArray[np.float32] | None = None
    if sae.rescale != "none":
        assert norms is not None
        v["norm"] = multiplied = norms  # folded or not, these are the values
    if sae.rescale == "choice":
        assert norms is not None
        back = 1 / np.maximum(norms, _LEAST)
        scale = (back if folded is None else back * folded).astype(np.float32)
        multiplied = folded
    fire = _magnitude if sae.architecture == "abstopk" else _value
    return Rule(v, fire, scale, multiplied, sae.k, not sae.relu)


def _threshold(
    sae: Sae, vector: Callable[[str], NDArray[np.float32]]
) -> NDArray[np.float32] | np.float32:
    """The threshold of each latent [F]. Raises BadInput for one that was never set."""
    if sae.threshold is not None:
        return np.full(sae.d_sae, sae.threshold, np.float32)
    if sae.log_threshold:
        return np.exp(vector("log_threshold"))
    found = vector("threshold")
    if found.size == 1 and (one := found.reshape(-1)[0]) < 0:
        raise BadInput(
            f"{sae.weights}: its threshold is {one:g}, which stands for one that was never set; "
            "expected at least 0 (save the SAE again after its threshold was estimated)"
        )
    if sae.jump and (found < 0).any():
        latent = int(np.flatnonzero(found < 0)[0])
        raise BadInput(
            f"{sae.weights}: not supported: the threshold of latent {latent} is {found[latent]:g}: "
            "negative latents above it would be kept; expected at least 0"
        )
    return np.broadcast_to(found, sae.d_sae)


def _positive(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p += v["bias"]
    return p > 0, p


def _above_threshold(p: Any, v: dict[str, Any]) -> tuple[Any, Any]:
    p += v["bias"]
    return (p * v["norm"] if "norm" in v else p) > v["floor"], p


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
