"""Adapters put onto a loaded model through peft: merged into its weights, or applied beside them.

An adapter names its modules as they are called in the model with a head, with all layers. What is read
here has no head and perhaps fewer layers, so that modules are found by the end of their path, and ranks
and scales are written out for each.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.files.safetensors import read_header
from actprobe.models.adapters.before import Before
from actprobe.models.adapters.places import CONFIG, WEIGHTS, Adapter

_PREFIX = "base_model.model."
_PARTS = re.compile(r"\.(?:lora_[A-Za-z_]+|hada_[a-z0-9_]+|lokr_[a-z0-9_]+)(?:\.|$)")
_HEADS = ("lm_head", "score", "classifier", "embed_out")  # they come after every site
_FORGET = ("layers_to_transform", "layers_pattern", "exclude_modules", "modules_to_save")


@dataclass(frozen=True)
class _Described:
    """An adapter's files. settings: its config; modules: path -> names of its tensors, and those of
    whole modules that were trained (`saved`)."""

    settings: dict[str, Any]
    modules: Mapping[str, list[str]]
    saved: Mapping[str, list[str]]
    shapes: Mapping[str, tuple[int, ...]]


def _describe(a: Adapter) -> _Described:
    settings = json.loads((a.folder / CONFIG).read_text(encoding="utf-8"))
    tensors = read_header(a.folder / WEIGHTS).tensors
    modules: dict[str, list[str]] = {}
    saved: dict[str, list[str]] = {}
    for name in tensors:
        path = name.removeprefix(_PREFIX)
        if found := _PARTS.search(path):
            modules.setdefault(path[: found.start()], []).append(name)
        else:
            saved.setdefault(path.rpartition(".")[0].removesuffix(".base_layer"), []).append(name)
    if not modules and not saved:
        raise ConfigError(f"{a.called}: {WEIGHTS} holds nothing")
    return _Described(settings, modules, saved, {n: t.shape for n, t in tensors.items()})


def _found(path: str, there: Mapping[str, nn.Module]) -> str | None:
    """The module that is called so in a model with a head."""
    parts = path.split(".")
    return next((p for n in range(len(parts)) if (p := ".".join(parts[n:])) in there), None)


def check(config: Any, adapters: Sequence[Adapter], name: str, trusted: bool) -> None:
    """Raise ConfigError for adapters that do not fit the model; no weights are loaded.

    config: of transformers, with all layers.
    """
    if not adapters:
        return
    _peft(name)
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=trusted)
    there = dict(model.named_modules())
    for a in adapters:
        d = _describe(a)
        base = d.settings.get("base_model_name_or_path") or "a model that it does not name"
        for path, names in {**d.modules, **d.saved}.items():
            if path.split(".")[-1] in _HEADS:
                continue
            called = _found(path, there)
            if called is None:
                raise ConfigError(
                    f"{a.called}: an adapter of another base: it changes {path}, which models.{name} "
                    f"does not have; it was trained on {base}"
                )
            expected = (
                tuple(there[called].weight.shape) if hasattr(there[called], "weight") else None
            )
            for tensor in names:
                shape = d.shapes[tensor]
                if expected is not None and not _fits(tensor, shape, expected, path in d.saved):
                    raise ConfigError(
                        f"{a.called}: an adapter of another base: {tensor.removeprefix(_PREFIX)} is "
                        f"{shape}, and {called} of models.{name} is {expected}; it was trained on {base}"
                    )


def _fits(tensor: str, shape: tuple[int, ...], module: tuple[int, ...], saved: bool) -> bool:
    """Whether a tensor belongs to a module's weight of this shape, which may be transposed (GPT-2)."""
    if saved:
        return not tensor.endswith("weight") or shape == module
    if ".lora_A" in tensor or ".lora_embedding_B" in tensor:
        return shape[-1 if ".lora_A" in tensor else 0] in module
    if ".lora_B" in tensor or ".lora_embedding_A" in tensor:
        return shape[0 if ".lora_B" in tensor else -1] in module
    return True


@contextlib.contextmanager
def worn(
    module: nn.Module, adapters: Sequence[Adapter], merged: bool, name: str, *, keep: bool
) -> Iterator[nn.Module]:
    """The model with its adapters, which must fit it (`check`), for the length of the block.

    keep: the model is wanted without them, or with others, afterwards. It then has the bits that it
    had: adapters are merged into copies of its tensors, and nothing is ever taken out of a sum. The
    copies take as much memory as the modules that an adapter changes.
    """
    if not adapters:
        yield module
        return
    before = Before(module, _changed(module, adapters) if merged else ()) if keep else None
    try:
        yield put_on(module, adapters, merged, name)
    finally:
        if before is not None:
            before.restore()


def _changed(module: nn.Module, adapters: Sequence[Adapter]) -> list[nn.Module]:
    """The modules whose tensors these adapters change."""
    there = {n: m for n, m in module.named_modules() if n}
    found: dict[str, nn.Module] = {}
    for d in map(_describe, adapters):
        for path in (*d.modules, *d.saved):
            if (called := _found(path, there)) is not None:
                found[called] = there[called]
    return list(found.values())


def put_on(module: nn.Module, adapters: Sequence[Adapter], merged: bool, name: str) -> nn.Module:
    """The model with its adapters, which must fit it (`check`); their effects add up.

    Adapters of layers that were not loaded are passed over.
    """
    peft = _peft(name)
    whole = None
    for n, a in enumerate(adapters):
        d = _describe(a)
        prepared = _prepared(module, d, peft)
        if prepared is None:
            continue
        settings, state = prepared
        called = f"adapter{n}"
        if merged or whole is None:
            whole = peft.PeftModel(module, settings, adapter_name=called)
        else:
            whole.add_adapter(called, settings)
        _load(whole, state(a.folder / WEIGHTS), called, a, peft)
        _scale(whole, called, a)
        if merged:
            module = whole.merge_and_unload(safe_merge=True)
            whole = None
    if whole is not None:
        whole.base_model.set_adapter(list(whole.peft_config))
        module = whole.base_model.model
    return module.eval().requires_grad_(False)


def _prepared(module: nn.Module, d: _Described, peft: Any) -> Any:
    """peft's config for the modules that are here, and what reads their tensors by peft's names."""
    there = {n: m for n, m in module.named_modules() if n}
    own = {path: p for path in d.modules if (p := _found(path, there)) is not None}
    saved = {path: p for path in d.saved if (p := _found(path, there)) is not None}
    if not own and not saved:
        return None
    settings = {k: v for k, v in d.settings.items() if k not in _FORGET}
    settings |= {"target_modules": sorted(own.values()), "inference_mode": True, "task_type": None}
    for pattern, default in (("rank_pattern", "r"), ("alpha_pattern", None)):
        if settings.get(pattern):
            settings[pattern] = _written_out(settings[pattern], own, settings.get(default or ""))
    if whole := sorted(p for path, p in saved.items() if path not in own):
        settings["modules_to_save"] = whole
    config = peft.PeftConfig.from_peft_type(**settings)
    names = {
        n: (p, path)
        for path, p in {**own, **saved}.items()
        for n in (*d.modules.get(path, ()), *d.saved.get(path, ()))
    }

    def state(file: Path) -> dict[str, torch.Tensor]:
        with safe_open(file, "pt") as f:
            return {
                f"{_PREFIX}{p}{n.removeprefix(_PREFIX).removeprefix(path)}": f.get_tensor(n)
                for n, (p, path) in names.items()
            }

    return config, state


def _written_out(
    patterns: Mapping[str, Any], own: Mapping[str, str], default: Any
) -> dict[str, Any]:
    """A pattern's value for each module; peft matches patterns with the end of a path."""
    found = {}
    for path, called in own.items():
        for pattern, value in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", path) and value != default:
                found[re.escape(called)] = value
                break
    return found


def _load(
    whole: Any, state: Mapping[str, torch.Tensor], called: str, a: Adapter, peft: Any
) -> None:
    try:
        result = peft.set_peft_model_state_dict(whole, dict(state), adapter_name=called)
    except (RuntimeError, KeyError, ValueError, SafetensorError) as e:
        raise ConfigError(f"{a.called}: peft cannot load it: {str(e)[:300]}") from e
    missing = [
        k for k in result.missing_keys if f".{called}." in f"{k}." and "original_module" not in k
    ]
    if missing or result.unexpected_keys:
        wrong = (missing or list(result.unexpected_keys))[0]
        raise ActprobeError(f"{a.called}: peft found no place or no values for {wrong}")


def _scale(whole: Any, called: str, a: Adapter) -> None:
    """Make an adapter's effect `scale` times as large."""
    if a.scale == 1.0:
        return
    scales = [m.scaling for m in whole.modules() if isinstance(getattr(m, "scaling", None), dict)]
    scales = [s for s in scales if called in s]
    if not scales:
        raise ConfigError(
            f"{a.called}: scale {a.scale}: adapters of this kind have no scale; leave it out"
        )
    for s in scales:
        s[called] *= a.scale


def _peft(name: str) -> Any:
    try:
        return import_module("peft")
    except ImportError:
        raise ConfigError(
            f"models.{name}.adapter: needs the package peft, which is not installed here "
            "(pip install 'actprobe[adapters]', or pip install peft)"
        ) from None
