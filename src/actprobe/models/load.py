"""Loading a model to read from it: base model, no head, no more layers than are needed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.models import families, quantised, special_cases, untrained
from actprobe.models.located import explained, require_own_code
from actprobe.models.sites import Point, find_layers, hook_point, language_parts, share_layers
from actprobe.models.view import View, keep_for

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Model:
    """A loaded model.

    module: what is run; parts: what could be (`sites.language_parts`); config: its transformers
    config, cut like the model; depth: layers that were loaded; points: where each site is read;
    paths: site -> module path; device: where its inputs go; mask: whether padded batches need an
    attention mask; pads: whether rows of several lengths may share a batch; form: of
    `special_cases.FORMS`; attention: the kernel in use.
    """

    module: nn.Module
    parts: Sequence[nn.Module]
    config: Any
    depth: int
    points: Mapping[str, Point]
    paths: Mapping[str, str]
    device: torch.device
    dtype: torch.dtype
    mask: bool
    pads: bool
    form: str | None
    attention: str


@dataclass(frozen=True)
class Base:
    """Loaded weights, without adapters.

    config: of transformers, cut like the model; n_layers: that were loaded, None when not known.
    """

    module: Any
    config: Any
    n_layers: int | None


def load_config(where: View, name: str, model: Mapping[str, Any]) -> Any:
    """The model's transformers config, checked against `n_layers` and `d_model` of ours."""
    from transformers import AutoConfig

    require_own_code(where, name)
    with explained(name, where):
        config = AutoConfig.from_pretrained(**where.arguments)
    if where.called:  # transformers knows some models by name
        config._name_or_path = where.called
    where.config = config
    described = config.to_dict()
    for key, found in (
        ("n_layers", families.n_layers(described)), ("d_model", families.d_model(described)),
    ):  # fmt: skip
        if found is not None and model[key] not in (None, found):
            raise ConfigError(f"models.{name}.{key}: {model[key]}, but the model has {found}")
    return config


def check_sites(config: Any, sites: Sequence[str], name: str) -> None:
    """Raise ConfigError for a site that the model does not have; before weights are loaded."""
    described = config.to_dict()
    n = families.n_layers(described)
    for site in sites:
        kind, _, layer = site.partition(".")
        if layer and n is not None and int(layer) >= n:
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


def check_prefix(config: Any, model: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError for `share_prefix` of a model that cannot."""
    described = config.to_dict()
    if model["share_prefix"] and not families.may_share_prefix(described):
        raise ConfigError(
            f"models.{name}.share_prefix: only for causal decoders that are mapped and keep keys and "
            f"values, not for {families.model_type(described)!r}"
        )


def load_model(
    where: View, name: str, model: Mapping[str, Any], config: Any, sites: Sequence[str]
) -> Base:
    """Load the layers that the sites need, in the configured precision, on the device.

    `config` describes no more than these layers afterwards.
    """
    from transformers import AutoModel
    from transformers.utils import is_accelerate_available
    from transformers.utils import logging as hf_logging

    described = config.to_dict()
    n_layers = families.n_layers(described) or model["n_layers"]
    needed = max((int(s.partition(".")[2] or 0) for s in sites), default=0) + 1
    keep = keep_for(described, where.files.parameters or (), needed)
    random = model["weights"] == "random"
    if families.may_cut(described, needed) and not random:
        n_layers = _cut(config, needed)
    if model["device_map"] is not None and not is_accelerate_available():
        raise ConfigError(
            f"models.{name}.device_map: needs the package accelerate, which is not installed here "
            "(pip install accelerate)"
        )
    if model["device_map"] is not None and random:
        raise ConfigError(
            f"models.{name}: device_map spreads weights as they are read, and weights: random reads "
            "none; leave one of the two out"
        )
    device = pick_device(model["device"])
    options: dict[str, Any] = {"dtype": _DTYPES[model["dtype"]], "config": config}
    if model["attn_implementation"]:
        options["attn_implementation"] = model["attn_implementation"]
    if model["device_map"] is not None:
        options["device_map"] = model["device_map"]
    options |= quantised.options(config, model, device)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    module: Any
    info: dict[str, Any] = {"missing_keys": ()}
    left_out: list[str] = []
    with explained(name, where):
        if random:
            module = untrained.initialise(where, options, model["seed"])
        else:
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
    if "device_map" not in options:
        module = module.to(device)
    return Base(quantised.settled(module, config, model), config, n_layers)


def pointed(base: Base, module: nn.Module, model: Mapping[str, Any], sites: Sequence[str]) -> Model:
    """A base as it is read at these sites; module: its own, perhaps with adapters on it."""
    described = base.config.to_dict()
    kind, known = families.model_type(described), families.family(described)
    parts = language_parts(module)
    searched = module if model["layer_list"] else parts[-1]
    override = model["layer_list"] or special_cases.LAYER_LISTS.get(kind)
    _, layers = find_layers(searched, base.n_layers, override)
    if families.is_one_of(described, special_cases.SHARED_LAYERS):
        layers = share_layers(layers, base.n_layers or len(layers))
    points = {s: hook_point(parts[-1], layers, known, s) for s in sites}
    names = {m: path for path, m in module.named_modules()}
    return Model(
        parts[0],
        parts,
        base.config,
        len(layers),
        points,
        {s: names[p.module] + (" (input)" if p.at_input else "") for s, p in points.items()},
        _input_device(module),
        _DTYPES[model["dtype"]],
        families.needs_mask(described),
        not families.is_one_of(described, special_cases.UNPADDED),
        special_cases.FORMS.get(kind),
        str(base.module.config._attn_implementation),
    )


def _cut(config: Any, n: int) -> int:
    """Let a config describe only its first n layers; the weights of the others stay on disk."""
    whole = families.n_layers(config.to_dict())
    config.num_hidden_layers = n
    for key, value in config.to_dict().items():  # what each layer attends to, and the like
        if isinstance(value, list) and len(value) == whole:
            with contextlib.suppress(AttributeError):  # follows from other fields
                setattr(config, key, value[:n])
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
