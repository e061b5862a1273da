"""Sites in a loaded model: hooks that read a site without changing the forward pass."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from actprobe.base.errors import ActprobeError
from actprobe.models import architectures

Reader = Callable[[str, torch.Tensor], None]


class Done(Exception):
    """Every wanted site was read: nothing after it needs to run."""


class ModelFailed(Exception):
    """The model could not compute a batch, or a site is not what it should be; says why."""


class ReaderFailed(Exception):
    """`error` was raised by the code that reads an activation, not by the model around it."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def takes(module: nn.Module, argument: str) -> bool:
    """Whether the forward pass of a module has an argument of this name."""
    known = _arguments(type(module).forward)
    return argument in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


@cache
def _arguments(forward: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(forward).parameters


def language_parts(model: Any) -> list[Any]:
    """The modules that could read text by themselves, the outermost first.

    The model itself; inside a multimodal model its language model; of an encoder-decoder the
    encoder alone. Raises ActprobeError when none takes token ids.
    """
    parts = [model]
    while (inner := _inner(parts[-1])) is not None and inner not in parts:
        parts.append(inner)
    found = [p for p in parts if _reads_tokens(p) and not _has_decoder(p, parts)]
    if not found:
        raise ActprobeError(
            f"{type(model).__name__} takes no token ids: actprobe reads models of text"
        )
    return found


def _inner(part: Any) -> Any:
    with suppress(AttributeError, NotImplementedError):  # it is no model of its own
        return part.get_encoder() if part.config.is_encoder_decoder else part.get_decoder()
    return None


def _has_decoder(part: Any, parts: Sequence[Any]) -> bool:
    """Whether this is an encoder-decoder whose encoder is among the parts."""
    return part is not parts[-1] and part.config.is_encoder_decoder


def _reads_tokens(module: Any) -> bool:
    return isinstance(module, nn.Module) and "input_ids" in _arguments(type(module).forward)


class Point(NamedTuple):
    """Where a site is read: a module, at its input or its output, in which of its calls."""

    module: nn.Module
    at_input: bool
    call: int = 0


def share_layers(few: nn.ModuleList, n_layers: int) -> nn.ModuleList:
    """A list of all layers where each of few modules stands for several, one after the other."""
    each = n_layers / len(few)
    return nn.ModuleList([few[int(i / each)] for i in range(n_layers)])


def find_layers(
    model: nn.Module, n_layers: int | None, override: str | None
) -> tuple[str, nn.ModuleList]:
    """Module path and list of the model's layers.

    It is the only ModuleList of length `n_layers` (those inside its layers aside), unless `override`
    names one. Raises ActprobeError listing the candidates when it is none or not the only one.
    """
    lists = {p: m for p, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = {p: m for p, m in lists.items() if len(m) == n_layers}
    candidates = {
        p: m for p, m in fitting.items() if not any(p.startswith(f"{o}.") for o in fitting)
    }
    if override is not None:
        candidates = {p: m for p, m in lists.items() if p == override}
    if len(candidates) != 1:
        found = ", ".join(f"{p} ({len(m)})" for p, m in (candidates or lists).items()) or "none"
        depth = f"{n_layers} layers" if n_layers else "layers, whose number is not known"
        raise ActprobeError(
            f"layer list of {type(model).__name__}: "
            + (f"no list at {override!r}" if override else f"not exactly one of {depth}")
            + f"; lists in the model: {found}; set layer_list to the right one"
            + ("" if n_layers else ", and n_layers")
        )
    return next(iter(candidates.items()))


def hook_point(
    model: nn.Module, layers: nn.ModuleList, family: architectures.Family | None, site: str
) -> Point:
    """Where a site is read. Raises ActprobeError for a layer that is not there."""
    kind, _, layer = site.partition(".")
    if kind == "embed":
        assert family is not None
        if not family.embed_apart:
            return Point(layers[0], True)
        return Point(model.get_input_embeddings(), False)  # type: ignore[operator]
    if int(layer) >= len(layers):
        raise ActprobeError(f"site {site}: the layer list of this model has {len(layers)} layers")
    block = layers[int(layer)]
    call = sum(m is block for m in list(layers)[: int(layer)])
    if kind not in ("resid_pre", "resid_post"):
        assert family is not None
        block = _submodule(block, getattr(family, kind), site)
    return Point(block, kind in architectures.INPUTS, call)


def _submodule(block: nn.Module, paths: str, site: str) -> nn.Module:
    """The first of these paths, "a|b", that is there."""
    for path in paths.split("|"):
        with suppress(AttributeError):
            return block.get_submodule(path)
    raise ActprobeError(
        f"site {site}: {type(block).__name__} has no {paths.replace('|', ' or ')}; ask for "
        "resid_pre and resid_post, or for other layers"
    )


@contextmanager
def hooked(points: Mapping[str, Point], read: Reader) -> Iterator[Counter[str]]:
    """During one forward pass, call `read(site, h)` for each site; count the calls of its module.

    Raises ModelFailed for what is no tensor, ReaderFailed for what `read` raises (but for Done).
    """
    calls: Counter[str] = Counter()

    def seen(site: str, h: Any) -> None:
        calls[site] += 1
        if calls[site] != points[site].call + 1:
            return
        if not isinstance(h, torch.Tensor):
            raise ModelFailed(f"site {site} is a {type(h).__name__}, not a tensor")
        try:
            read(site, h)
        except Done:
            raise
        except Exception as e:
            raise ReaderFailed(e) from e

    def before(site: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            seen(site, args[0] if args else kwargs.get("hidden_states"))

        return hook

    def after(site: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            seen(site, out[0] if isinstance(out, tuple | list) and out else out)

        return hook

    handles = [
        point.module.register_forward_pre_hook(before(site), with_kwargs=True)
        if point.at_input
        else point.module.register_forward_hook(after(site), with_kwargs=True)
        for site, point in points.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def until_all(sites: Iterable[str], read: Reader) -> Reader:
    """A reader that passes on to `read` and raises Done once every site was read."""
    waiting = set(sites)

    def seen(site: str, h: torch.Tensor) -> None:
        read(site, h)
        waiting.discard(site)
        if not waiting:
            raise Done

    return seen
