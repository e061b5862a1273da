"""What an SAE is, whatever the format it was read from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from actprobe.base.errors import BadInput

MOST_LATENTS = (1 << 31) - 1  # latents are counted in 32 bits


@dataclass(frozen=True)
class Sae:
    """An SAE without its weights.

    weights: the file that holds them; layout, suffix: how its tensors lie and what their names end
    in (`layouts`). architecture: one of `headers.NEEDS`. d_in: width of the activations,
    d_sae: number of latents. k: of a top-k.

    What is done to the input, in this order: center subtracts its mean over d_in; normalize is none,
    layer_norm or constant_norm_rescale; input_scale s and bias_scale c: x is encoded as s·x and
    decoded as z·W_dec / s + c·b_dec; subtract_b_dec. decoder_bias: there is a b_dec.

    rescale: pre-activations are multiplied by the decoder's row norms for the choice of latents
    ("choice"), or for the choice and in the latents themselves ("values"), or not ("none").
    threshold: one for all latents, where the file holds none; log_threshold: the file holds
    logarithms; jump: what is below 0 and above its threshold is kept as it is, where others set it
    to 0. relu: a top-k's negative choices become 0, where others keep them.
    transcoder: predicts another site, so the reconstruction says nothing about the input.

    What it was trained on, where its files say so: model; hook and other hooks that they name
    besides (also); layer, where nothing more is known; the head of hook_z (head); whether texts
    began with a BOS (prepend_bos); the most tokens of a text (context_size); the slice of its
    positions (positions); and in words, what else was unlike the activations here (unlike).
    """

    weights: str
    architecture: str
    d_in: int
    d_sae: int
    k: int | None = None
    layout: str = "plain"
    suffix: str = ""
    center: bool = False
    normalize: str = "none"
    input_scale: float = 1.0
    bias_scale: float = 1.0
    subtract_b_dec: bool = False
    decoder_bias: bool = True
    rescale: str = "none"
    threshold: float | None = None
    log_threshold: bool = False
    jump: bool = False
    relu: bool = True
    transcoder: bool = False
    model: str | None = None
    hook: str | None = None
    also: tuple[str, ...] = ()
    layer: int | None = None
    head: int | None = None
    prepend_bos: bool | None = None
    context_size: int | None = None
    positions: tuple[int | None, ...] | None = None
    unlike: tuple[str, ...] = ()


def require_sound(sae: Sae, where: object) -> Sae:
    """The SAE, when its numbers are possible. Raises BadInput naming the one that is not.

    where: the folder or file, for messages.
    """
    numbers = {
        "scale of the input": sae.input_scale > 0 and math.isfinite(sae.input_scale),
        "scale of the bias": math.isfinite(sae.bias_scale),
        "threshold": sae.threshold is None or 0 <= sae.threshold < math.inf,
    }
    found = (sae.input_scale, sae.bias_scale, sae.threshold)
    for (name, good), value in zip(numbers.items(), found, strict=True):
        if not good:
            raise BadInput(
                f"{where}: the {name} would be {value}; expected a finite number "
                f"{'above 0' if name.endswith('input') else 'of at least 0'} (correct the config, or "
                "fetch it again)"
            )
    if sae.d_sae > MOST_LATENTS:
        raise BadInput(f"{where}: {sae.d_sae:,} latents; expected at most {MOST_LATENTS:,}")
    if sae.k is not None and not 1 <= sae.k <= sae.d_sae:
        raise BadInput(
            f"{where}: k is {sae.k}; expected a whole number from 1 to its {sae.d_sae:,} latents "
            "(correct the config, or fetch it again)"
        )
    return sae
