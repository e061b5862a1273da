"""Quantised weights: by the model's own `quantization_config`, or as they are read (`quantization`).

transformers loads them, each method through packages of its own. What it lacks here is said before
weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from actprobe.base.errors import ConfigError

_TAKEN_BACK = ("fp8", "mxfp4")


def method(described: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """The method by which weights are quantised in memory, None for none.

    described: the model's `config.json`; model: its entry in our config.
    """
    if model["quantization"] is not None:
        return f"bitsandbytes, {model['quantization']['bits']} bits"
    own = _own(described)
    return (
        None if own is None else str(own.get("quant_method") or _bits_and_bytes(own) or "unknown")
    )


def _own(described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = described.get("quantization_config") or described.get("compression_config")
    if found is None and isinstance(described.get("text_config"), Mapping):
        return _own(described["text_config"])
    return found if isinstance(found, Mapping) else None


def _bits_and_bytes(own: Mapping[str, Any]) -> str | None:
    return "bitsandbytes" if own.get("load_in_4bit") or own.get("load_in_8bit") else None


def check(
    config: Any, model: Mapping[str, Any], name: str, pick: Callable[[str], torch.device]
) -> None:
    """Raise ConfigError for what cannot be loaded here; no weights are read.

    config: of transformers; pick: the device for `device` of the config.
    """
    described = config.to_dict()
    how, where = method(described, model), f"models.{name}"
    if how is None:
        return
    if model["weights"] == "random":
        raise ConfigError(
            f"{where}: random weights are not quantised ({how}); leave one of the two out"
        )
    if model["quantization"] is not None and (own := _own(described)) is not None:
        raise ConfigError(
            f"{where}.quantization: its weights are quantised already, by "
            f"{own.get('quant_method', 'its own method')} (config.json); leave quantization out"
        )
    if model["adapter"] not in (None, "ignore") and model["merge_adapters"]:
        raise ConfigError(
            f"{where}.merge_adapters: quantised weights ({how}) would be rounded anew; write "
            "merge_adapters: false"
        )
    try:
        _quantizer(described, model).validate_environment(
            dtype=getattr(torch, model["dtype"]),
            device_map=_spread(model, pick(model["device"])),
            weights_only=True,
        )
    except Exception as e:  # each method says it by another one
        raise ConfigError(
            f"{where}: weights quantised by {how} cannot be loaded here: {e}"
        ) from None
    _require_accelerate(where, how)


def _quantizer(described: Mapping[str, Any], model: Mapping[str, Any]) -> Any:
    from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

    if model["quantization"] is not None:
        return AutoHfQuantizer.from_config(_settings(model), pre_quantized=False)
    own = dict(_own(described) or {})
    if "quant_method" not in own and _bits_and_bytes(own):
        own["quant_method"] = "bitsandbytes"
    return AutoHfQuantizer.from_config(AutoQuantizationConfig.from_dict(own), pre_quantized=True)


def _settings(model: Mapping[str, Any]) -> Any:
    from transformers import BitsAndBytesConfig

    wanted = model["quantization"]
    if wanted["bits"] == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=wanted["kind"],
        bnb_4bit_compute_dtype=getattr(torch, model["dtype"]),
    )


def _require_accelerate(where: str, how: str) -> None:
    from transformers.utils import is_accelerate_available

    if not is_accelerate_available():
        raise ConfigError(
            f"{where}: weights quantised by {how} need the package accelerate, which is not installed "
            "here (pip install accelerate)"
        )


def _spread(model: Mapping[str, Any], device: torch.device) -> Any:
    return model["device_map"] if model["device_map"] is not None else {"": str(device)}


def options(config: Any, model: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Further arguments of `from_pretrained`; none for weights that are not quantised.

    Quantised weights are put where they belong as they are read: they cannot be moved later.
    """
    if method(config.to_dict(), model) is None:
        return {}
    found: dict[str, Any] = {"device_map": _spread(model, device)}
    if model["quantization"] is not None:
        found["quantization_config"] = _settings(model)
    return found


def settled(module: Any, config: Any, model: Mapping[str, Any]) -> Any:
    """The model in its precision where transformers took quantised weights back to plain numbers.

    It does that on machines that cannot compute with them, and leaves float32 beside other numbers.
    """
    if method(config.to_dict(), model) not in _TAKEN_BACK:
        return module
    plain = (torch.float32, torch.bfloat16, torch.float16)
    if any(p.dtype not in plain for p in module.parameters()):
        return module
    return module.to(getattr(torch, model["dtype"]))
