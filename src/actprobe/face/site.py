"""What runs at a site: the decisions of its probes on new tokens, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.face import streams
from actprobe.face.counting import Counter, Counting
from actprobe.face.places import by_token
from actprobe.models.sites import Point

if TYPE_CHECKING:
    from actprobe.face.probe import Probe

Tensor = torch.Tensor
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "logistic": torch.sigmoid, "identity": lambda x: x,
}  # fmt: skip


@dataclass
class Stream:
    """A probe on a stream of tokens.

    counting: which tokens count; linear: weights [columns, d] and intercepts of decisions that are
    reduced, or None; decide: from reduced vectors [b, t, d] to decisions [b, t, columns], of a probe
    that is not linear in its tokens; make: a fresh state.
    """

    name: str
    width: int
    counting: Counting
    make: Callable[[], Any]
    linear: tuple[Tensor, Tensor] | None = None
    decide: Callable[[Tensor], Tensor] | None = None
    attention: bool = False
    state: Any = field(default=None)

    def restart(self) -> None:
        """Begin a new sequence."""
        self.state = self.make()

    def __call__(self, h: Tensor, z: Tensor | None, counts: Tensor) -> Tensor:
        """Decisions of each prefix, [b, t, columns]. h: the activations; z: its columns of h·weights."""
        if self.attention:
            assert z is not None and self.linear is not None
            bias = self.linear[1][1]
            return (self.state(z[..., 0], z[..., 1] - bias, counts) + bias)[..., None]
        if z is not None:
            return self.state(z, counts)
        assert self.decide is not None
        return self.decide(self.state(h.float(), counts))


def stream_of(probe: Probe, by: str | None, how: Mapping[str, Any]) -> Stream:
    """The stream of a probe; by: a monitor over its tokens' scores. Raises ActprobeError for others."""
    model, origin = probe.scorer.model, probe.origin
    width = int(probe.scorer.about.get("width") or model.arrays["coef"].shape[-1])
    if by is not None and by not in streams.MONITORS:
        raise ActprobeError(f"by={by!r}; expected one of {', '.join(streams.MONITORS)}")
    if model.scorer not in ("linear", "layers", "attention"):
        raise ActprobeError(
            f"{probe.name}: {model.scorer} cannot be streamed; linear probes, networks and attention "
            "can"
        )
    if origin.reads not in ("activations", "tokens", "pooled"):
        raise ActprobeError(
            f"{probe.name} reads {origin.reads}; probes of activations can watch a model"
        )
    if any(step.name != "last_tokens" for step in model.before):
        raise ActprobeError(f"{probe.name}: it reads more of a row than single tokens tell")
    if model.scorer == "attention" and by is not None:
        raise ActprobeError(f"{probe.name}: attention weighs tokens itself; leave out by={by!r}")
    position = origin.as_read.get("position", origin.position) or "last"
    if model.scorer == "attention":
        a = model.arrays
        weights = torch.tensor(np.stack([a["query"], a["value"]]), dtype=torch.float32)
        bias = torch.tensor([0.0, float(a["intercept"].reshape(-1)[0])])
        counting = _counting(probe, "tokens")
        return Stream(
            probe.name, width, counting, streams.Attention, (weights, bias), attention=True
        )
    make, of_scores = _made(probe, position, by, how)
    counting = _counting(probe, "tokens" if by else position)
    if model.scorer == "linear" and of_scores:
        return Stream(probe.name, width, counting, make, _planes(model.arrays))
    decide = _decide(model)
    if of_scores:  # scores of single tokens, by a network
        return Stream(probe.name, width, counting, lambda: _Then(decide, make()), decide=_as_is)
    return Stream(probe.name, width, counting, make, decide=decide)


def _made(
    probe: Probe, position: Any, by: str | None, how: Mapping[str, Any]
) -> tuple[Callable[[], Any], bool]:
    """A fresh state, and whether it reduces decisions (True) or activations."""
    linear = probe.scorer.model.scorer == "linear"
    if by is not None:
        kind = streams.MONITORS[by]
        try:
            kind(**how)
        except TypeError as e:
            raise ActprobeError(f"by={by!r}: {e}") from None
        return (lambda: kind(**how)), True
    if how:
        raise ActprobeError(f"{', '.join(how)}: options of by={'ema'!r}; name it in `by`")
    if not isinstance(position, str):
        raise ActprobeError(
            f"{probe.name}: a span cannot be found while tokens come; say what is made of the tokens "
            'with by="last", "mean", "max" or "ema"'
        )
    if position in ("mean", "tokens"):
        return streams.Mean, linear
    if position == "max":
        return streams.Max, False
    if re.fullmatch(r"token\.-\d+", position):
        raise ActprobeError(f"{probe.name}: position {position} counts from the end; say `by`")
    return streams.Last, True


def _counting(probe: Probe, position: Any) -> Counting:
    """Which tokens a position looks at."""
    tokens = probe.origin.as_read.get("tokens", {})
    masked = position in ("mean", "max", "tokens")
    at = None
    if position == "first":
        at = 0
    elif isinstance(position, str) and position.startswith("token."):
        at = int(position.removeprefix("token."))
    return Counting(
        special=not (masked and tokens.get("exclude_special", True)),
        first=not (masked and tokens.get("exclude_first", True)),
        at=at,
    )


def _planes(arrays: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    coef = torch.tensor(arrays["coef"], dtype=torch.float32)
    intercept = torch.tensor(arrays["intercept"], dtype=torch.float32).reshape(-1)
    return coef.reshape(-1, coef.shape[-1]), intercept


def _as_is(x: Tensor) -> Tensor:
    return x


@dataclass
class _Then:
    """Decisions of single tokens, reduced."""

    decide: Callable[[Tensor], Tensor]
    state: Any

    def __call__(self, h: Tensor, counts: Tensor) -> Tensor:
        return self.state(self.decide(h), counts)


def _decide(model: Any) -> Callable[[Tensor], Tensor]:
    """The decisions of a linear model or a network on vectors."""
    active: Callable[[Tensor], Tensor] = _as_is
    planes = [_planes(model.arrays)] if model.scorer == "linear" else []
    if not planes:
        of = {k: torch.tensor(v, dtype=torch.float32) for k, v in model.arrays.items()}
        planes = [(of[f"weight_{i}"], of[f"bias_{i}"]) for i in range(int(model.how["layers"]))]
        active = _ACTIVATIONS[model.how["activation"]]

    def decide(x: Tensor) -> Tensor:
        for i, (weight, bias) in enumerate(planes):
            if weight.device != x.device:
                planes[i] = weight, bias = weight.to(x.device), bias.to(x.device)
            x = nn.functional.linear(x, weight, bias)
            x = active(x) if i + 1 < len(planes) else x
        return x

    return decide


@dataclass
class Site:
    """The probes at one site. own: their numbers; weights: of all that are linear, [columns, d]."""

    name: str
    point: Point
    form: str | None
    own: list[int]
    streams: Sequence[Stream]

    def __post_init__(self) -> None:
        linear = [s.linear for s in self.streams if s.linear is not None]
        self.weights = torch.cat([w for w, _ in linear]) if linear else None
        self.bias = torch.cat([b for _, b in linear]) if linear else None
        self._calls = 0

    def hook(self, counter: Counter, seen: Callable[[Site, list[Tensor]], None]) -> Any:
        """Put the hook in place; returns its handle."""

        def read(h: Tensor) -> None:
            self.read(h, counter, seen)

        if self.point.at_input:

            def before(module: nn.Module, args: Any, kwargs: Any) -> None:
                read(args[0] if args else kwargs["hidden_states"])

            return self.point.module.register_forward_pre_hook(before, with_kwargs=True)

        def after(module: nn.Module, args: Any, out: Any) -> None:
            read(out[0] if isinstance(out, (tuple, list)) else out)

        return self.point.module.register_forward_hook(after)

    def read(self, h: Tensor, counter: Counter, seen: Callable[[Site, list[Tensor]], None]) -> None:
        """Take in what passes; of a module that stands for several layers only the right one."""
        self._calls = 0 if counter.fresh(self.name) else self._calls + 1
        if self._calls == self.point.call:
            seen(self, self(h, counter))

    @torch.no_grad()
    def __call__(self, h: Tensor, counter: Counter) -> list[Tensor]:
        """The decisions of each probe for each prefix of the new tokens."""
        h = by_token(h, counter.shape, self.form)
        for s in self.streams:
            if h.shape[-1] != s.width:
                raise BadInput(
                    f"{s.name} reads {s.width} columns, and {self.name} of this model has {h.shape[-1]}"
                )
        z = None
        if self.weights is not None and self.bias is not None:
            if self.weights.device != h.device:
                self.weights, self.bias = self.weights.to(h.device), self.bias.to(h.device)
            z = nn.functional.linear(h.float(), self.weights, self.bias)
        found, at = [], 0
        for s in self.streams:
            part = None
            if s.linear is not None and z is not None:
                part = z[..., at : at + len(s.linear[0])]
                at += len(s.linear[0])
            found.append(s(h, part, counter.counts(s.counting, h.device)))
        return found
