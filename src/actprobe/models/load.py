"""Loading a model to read from it: base model, no head, no more layers than are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actprobe.errors import ActprobeError, ConfigError
from actprobe.models import elementwise, families
from actprobe.models.located import explained, require_own_code
from actprobe.models.sites import find_layers, hook_point
from actprobe.models.view import View, keep_for

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Model:
    """A loaded model.

    config: its transformers config, cut like the model; points: site -> (module, at its input?);
    paths: site -> module path; device: where its inputs go; mask: whether padded batches need an
    attention mask; attention: the kernel in use.
    """

    module: nn.Module
    config: Any
    points: Mapping[str, tuple[nn.Module, bool]]
    paths: Mapping[str, str]
    device: torch.device
    dtype: torch.dtype
    mask: bool
    attention: str


def load_config(where: View, name: str, model: Mapping[str, Any]) -> Any:
    """The model's transformers config, checked against `n_layers` and `d_model` of ours."""
    from transformers import AutoConfig

    require_own_code(where, name)
    with explained(name, where):
        config = AutoConfig.from_pretrained(**where.arguments)
    if where.called:  # transformers knows some models by name
        config._name_or_path = where.called
    where.config = config
    text = config.get_text_config()
    width = getattr(text, "hidden_size", None)
    for key, found in (("n_layers", text.num_hidden_layers), ("d_model", width)):
        if model[key] is not None and model[key] != found:
            raise ConfigError(f"models.{name}.{key}: {model[key]}, but the model has {found}")
    return config


def check_sites(config: Any, sites: Sequence[str], name: str) -> None:
    """Raise ConfigError for a site that the model does not have; before weights are loaded."""
    described, n = config.to_dict(), config.get_text_config().num_hidden_layers
    for site in sites:
        kind, _, layer = site.partition(".")
        if layer and int(layer) >= n:
            raise ConfigError(
                f"models.{name}: site {site}: the model has {n} layers, expected 0 to {n - 1}"
            )
        if reason := families.refusal(described, kind):
            raise ConfigError(f"models.{name}: site {site}: {reason}")


def load_tokenizer(where: View, name: str) -> Any:
    """The model's tokenizer; no other package's, whatever is installed (`mistral_format`)."""
    from transformers import AutoTokenizer

    with explained(name, where):
        return AutoTokenizer.from_pretrained(
            **where.arguments, config=where.config, mistral_format=False
        )


def load_model(
    where: View, name: str, model: Mapping[str, Any], config: Any, sites: Sequence[str]
) -> Model:
    """Load the layers that the sites need, in the configured precision, on the device."""
    from transformers import AutoModel
    from transformers.utils import is_accelerate_available
    from transformers.utils import logging as hf_logging

    described, text = config.to_dict(), config.get_text_config()
    known = families.family(described)
    n_layers = text.num_hidden_layers
    needed = max((int(s.partition(".")[2] or 0) for s in sites), default=0) + 1
    keep = keep_for(described, where.files.parameters or (), needed)
    if known is not None and needed < n_layers and text is config:
        n_layers = _cut(text, needed)
    if model["share_prefix"] and families.needs_mask(described):
        raise ConfigError(
            f"models.{name}.share_prefix: only for causal decoders that are mapped "
            f"({', '.join(f for f, v in families.FAMILIES.items() if v.causal)})"
        )
    if model["device_map"] is not None and not is_accelerate_available():
        raise ConfigError(
            f"models.{name}.device_map: needs the package accelerate, which is not installed here "
            "(pip install accelerate)"
        )
    device = pick_device(model["device"])
    options: dict[str, Any] = {"dtype": _DTYPES[model["dtype"]], "config": config}
    if model["attn_implementation"]:
        options["attn_implementation"] = model["attn_implementation"]
    if model["device_map"] is not None:
        options["device_map"] = model["device_map"]
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    with explained(name, where):
        left_out = where.show_weights(keep)
        module, info = AutoModel.from_pretrained(
            **where.arguments, **options, output_loading_info=True
        )
    where.require_unchanged()
    missing = [k for k in sorted(info["missing_keys"]) if not k.startswith("pooler.")]
    missing = [k for k in missing if not any(f".{p}".endswith(f".{k}") for p in left_out)]
    if missing:
        raise ActprobeError(
            f"models.{name}: {len(missing)} weights are not in its files, e.g. {missing[0]}"
        )
    module = module.eval().requires_grad_(False)
    if model["device_map"] is None:
        module = module.to(device)
        if device.type == "cpu":
            elementwise.lighten(module)
    _, layers = find_layers(module, n_layers, model["layer_list"])
    points = {s: hook_point(module, layers, known, s) for s in sites}
    names = {m: path for path, m in module.named_modules()}
    return Model(
        module,
        config,
        points,
        {s: names[m] + (" (input)" if at_input else "") for s, (m, at_input) in points.items()},
        _input_device(module),
        options["dtype"],
        families.needs_mask(described),
        str(module.config._attn_implementation),
    )


def _cut(text: Any, n: int) -> int:
    """Let a config describe only its first n layers; the weights of the others stay on disk."""
    text.num_hidden_layers = n
    if getattr(text, "layer_types", None):  # which layers attend locally
        text.layer_types = text.layer_types[:n]
    return n


def _input_device(module: nn.Module) -> torch.device:
    """Where token ids go: to the first weights that were not offloaded (accelerate moves them on)."""
    devices = (p.device for p in module.parameters())
    return next((d for d in devices if d.type != "meta"), torch.device("cpu"))


def pick_device(wanted: str) -> torch.device:
    """cpu, cuda or mps; auto takes the best there is. Raises ConfigError for one that is not."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((d for d, yes in there.items() if yes), "cpu")
    if not there.get(wanted, True):
        raise ConfigError(f"device {wanted} is not available on this machine")
    return torch.device(wanted)
