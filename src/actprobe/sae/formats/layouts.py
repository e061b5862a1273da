"""Names and orientations of tensors in the files of SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from actprobe.base.errors import BadInput
from actprobe.sae.tensors import Tensor

# Tensor -> names it goes by, and whether a matrix with that name has the latents first.
NAMES: dict[str, dict[str, bool]] = {
    "W_enc": {
        "W_enc": False, "w_enc": False, "W_E": False, "encoder.weight": True,
        "encoder_linear.weight": True,
    },
    "W_dec": {
        "W_dec": True, "w_dec": True, "W_D": True, "decoder.weight": False,
        "decoder_linear.weight": False,
    },
    "b_enc": dict.fromkeys(("b_enc", "b_E", "encoder.bias", "encoder_linear.bias"), True),
    "b_dec": dict.fromkeys(
        ("b_dec", "b_D", "bias", "decoder_bias", "decoder.bias", "decoder_linear.bias"), True
    ),
    "threshold": dict.fromkeys(
        ("threshold", "activation.threshold", "activation_function.threshold"), True
    ),
    "log_threshold": dict.fromkeys(
        ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"), True
    ),
    "b_gate": dict.fromkeys(("b_gate", "gate_bias"), True),
    "b_mag": dict.fromkeys(("b_mag", "mag_bias"), True),
    "r_mag": {"r_mag": True},
    "scaling_factor": dict.fromkeys(("scaling_factor", "finetuning_scaling_factor"), True),
}  # fmt: skip

# Formats that store matrices the other way round than their names say elsewhere.
_EXCHANGED: dict[str, dict[str, bool]] = {
    "plain": {},
    "encoder_rows": {"W_enc": True},  # circuit-tracer: both matrices have the latents first
    "torch_linear": {"W_enc": True, "W_dec": False},  # Qwen Scope: as `torch.nn.Linear` has them
}


def find(
    found: Mapping[str, Tensor],
    name: str,
    path: str | Path,
    layout: str = "plain",
    suffix: str = "",
) -> tuple[str, bool]:
    """The name that a tensor goes by in a file, and whether the latents come first in it.

    layout: one of those above; suffix: what its names end in. Raises BadInput when it is not there,
    or there under two names.
    """
    there = {a: first for a, first in NAMES[name].items() if a + suffix in found}
    if len(there) > 1:
        names = " and ".join(a + suffix for a in there)
        raise BadInput(f"{path}: holds {name} twice, as {names}; expected one of them")
    for alias, latents_first in there.items():
        return alias + suffix, _EXCHANGED[layout].get(alias, latents_first)
    raise BadInput(
        f"{path}: no tensor {name}{suffix}; it holds {', '.join(sorted(found)[:20]) or 'nothing'}"
    )


def has(found: Mapping[str, Tensor], name: str, suffix: str = "") -> bool:
    """Whether a tensor is there, under any of its names."""
    return any(alias + suffix in found for alias in NAMES[name])


def matrix_shape(
    found: Mapping[str, Tensor],
    name: str,
    path: str | Path,
    layout: str = "plain",
    suffix: str = "",
) -> tuple[int, int]:
    """(d, F) of a matrix whichever way round it is stored."""
    alias, latents_first = find(found, name, path, layout, suffix)
    shape = found[alias].shape
    if len(shape) != 2:
        raise BadInput(f"{path}: {alias} has shape {list(shape)}, expected a matrix")
    return (shape[1], shape[0]) if latents_first else (shape[0], shape[1])
