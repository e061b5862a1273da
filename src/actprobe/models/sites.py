"""Sites in a loaded model: hooks that read a site without changing the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from actprobe.errors import ActprobeError
from actprobe.models import architectures

Reader = Callable[[str, torch.Tensor], None]


class Done(Exception):
    """Every wanted site was read: nothing after it needs to run."""


def find_layers(model: nn.Module, n_layers: int, override: str | None) -> tuple[str, nn.ModuleList]:
    """Module path and list of the model's layers.

    It is the only ModuleList of length `n_layers`, unless `override` names one. Raises
    ActprobeError listing the candidates when it is none or not the only one.
    """
    lists = {p: m for p, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    candidates = {p: m for p, m in lists.items() if len(m) == n_layers}
    if override is not None:
        candidates = {p: m for p, m in lists.items() if p == override}
    if len(candidates) != 1:
        found = ", ".join(f"{p} ({len(m)})" for p, m in (candidates or lists).items()) or "none"
        raise ActprobeError(
            f"layer list of {type(model).__name__}: "
            + (f"no list at {override!r}" if override else f"not exactly one of {n_layers} layers")
            + f"; lists in the model: {found}; set layer_list to the right one"
        )
    return next(iter(candidates.items()))


def hook_point(
    model: nn.Module, layers: nn.ModuleList, family: architectures.Family | None, site: str
) -> tuple[nn.Module, bool]:
    """The module where a site is read, and whether at its input (True) or its output (False)."""
    kind, _, layer = site.partition(".")
    if kind == "embed":
        assert family is not None
        return (model.get_input_embeddings(), False) if family.embed_apart else (layers[0], True)  # type: ignore[operator]
    if int(layer) >= len(layers):
        raise ActprobeError(f"site {site}: the layer list of this model has {len(layers)} layers")
    block = layers[int(layer)]
    if kind in ("resid_pre", "resid_post"):
        return block, kind in architectures.INPUTS
    assert family is not None
    path: str = getattr(family, kind)
    return block.get_submodule(path), kind in architectures.INPUTS


@contextmanager
def hooked(points: Mapping[str, tuple[nn.Module, bool]], read: Reader) -> Iterator[None]:
    """During one forward pass, call `read(site, h)` for each site; raise Done after the last."""
    waiting = set(points)

    def seen(site: str, h: torch.Tensor) -> None:
        read(site, h)
        waiting.discard(site)
        if not waiting:
            raise Done

    def before(site: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            seen(site, args[0] if args else kwargs["hidden_states"])

        return hook

    def after(site: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            seen(site, out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [
        module.register_forward_pre_hook(before(site), with_kwargs=True)
        if at_input
        else module.register_forward_hook(after(site), with_kwargs=True)
        for site, (module, at_input) in points.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
