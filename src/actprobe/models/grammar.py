"""The words of the config: site patterns and positions.

Sites: `embed`, or `{kind}.{layer}` with a layer `3`, `-1` (from the end), `0.5` (share of the
depth), `0-5` (a range, both ends in) or `*` (all). Positions: `last`, `first`, `mean`, `max`,
`tokens`, `token.3`, `token.-2`, `span.{name}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.config import nearest
from actprobe.models.architectures import SITES
from actprobe.models.hooks import site_of
from actprobe.models.records import Position, Span

POSITIONS = ("last", "first", "mean", "max", "tokens")
_MASKED = ("mean", "max", "tokens")  # positions that look at every kept token
_MODULE = re.compile(
    r"(?:[\w.]+\.)?(?:layers?|h|blocks)[._](\d+)"
)  # model.layers.4, transformer.h.4


def expand_site(pattern: str, n_layers: int | None, where: str) -> list[str]:
    """Resolved site names ("resid_post.3") of one pattern, in layer order.

    n_layers: layers of the model; None when its config cannot be read yet. Raises ConfigError for
    an unknown site, a layer out of range, or a layer that needs `n_layers` when it is unknown.
    """
    kind, _, layer = str(pattern).partition(".")
    if kind not in SITES:
        raise ConfigError(f"{where}: unknown site {pattern!r}; {_meant(str(pattern))}")
    if kind == "embed":
        if layer:
            raise ConfigError(f"{where}: site {pattern!r}: embed has no layers")
        return ["embed"]
    return [f"{kind}.{n}" for n in _layers(layer, n_layers, f"{where}: site {pattern!r}")]


def _meant(pattern: str) -> str:
    """What to write in place of a site that is none."""
    if site := site_of(pattern):
        return f"write {site}"
    if pattern.isdigit() or (module := _MODULE.fullmatch(pattern)):
        layer = pattern if pattern.isdigit() else module[1]  # type: ignore[index]
        return f"write resid_post.{layer} (what layer {layer} puts out)"
    return nearest(pattern.partition(".")[0], SITES)


def _layers(text: str, n: int | None, where: str) -> list[int]:
    if text.isdigit():
        return [_in_range(int(text), n, where)]
    ends = re.fullmatch(r"(-?\d+)-(-?\d+)", text)
    share = re.fullmatch(r"\d*\.\d+", text)
    if text != "*" and not ends and not share and not re.fullmatch(r"-\d+", text):
        raise ConfigError(
            f"{where}: expected a layer such as 3, -1, 0.5 (share of the depth), 0-5 or *"
        )
    if ends and not ends[1].startswith("-") and not ends[2].startswith("-"):
        low, high = (_in_range(int(e), n, where) for e in ends.groups())
        return _span(low, high, where)
    if n is None:
        raise ConfigError(
            f"{where}: the number of layers is not known before the model is fetched; "
            "give n_layers in the model's config, or plain layer numbers"
        )
    if text == "*":
        return list(range(n))
    if share:
        if float(text) > 1:
            raise ConfigError(f"{where}: a share of the depth lies between 0.0 and 1.0")
        return [min(int(float(text) * n), n - 1)]
    if ends:
        low, high = (_in_range(int(e), n, where) for e in ends.groups())
        return _span(low, high, where)
    return [_in_range(int(text), n, where)]


def _span(low: int, high: int, where: str) -> list[int]:
    if high < low:
        raise ConfigError(f"{where}: the range ends before it begins")
    return list(range(low, high + 1))


def _in_range(layer: int, n: int | None, where: str) -> int:
    if n is not None and not -n <= layer < n:
        raise ConfigError(
            f"{where}: layer {layer} is out of range; the model has {n} layers, expected 0 to "
            f"{n - 1} or -{n} to -1"
        )
    return layer if layer >= 0 or n is None else layer + n


def is_masked(position: Position) -> bool:
    """Whether special tokens and the first position may be left out of a position of the spec."""
    return (position if isinstance(position, str) else position.reduce) in _MASKED


def is_said(position: Position) -> bool:
    """Whether a position of the spec is a span of what somebody says in a chat."""
    return isinstance(position, Span) and position.said


def is_labelled(position: Position) -> bool:
    """Whether a position of the spec is the part of each row that its label is of."""
    return isinstance(position, Span) and bool(position.labelled)


def position_spec(name: Any, spans: Mapping[str, Any], where: str) -> Position:
    """What a position means, as it stands in the spec. Raises ConfigError for an unknown one."""
    if re.fullmatch(r"-?\d+", str(name)):
        write = {-1: "last", 0: "first"}.get(int(name), f"token.{name}")
        raise ConfigError(f"{where}: unknown position {name!r}; write {write}")
    head, _, rest = name.partition(".")
    if name in POSITIONS or (head == "token" and re.fullmatch(r"-?\d+", rest)):
        return name
    if head == "span":
        if rest in spans:
            span = dict(spans[rest])
            chars = span.pop("chars", None)
            return Span(chars=None if chars is None else tuple(chars), **span)
        raise ConfigError(f"{where}: unknown span {rest!r}; {nearest(rest, spans)}")
    expected = (*POSITIONS, "token.0", "span.NAME")
    raise ConfigError(f"{where}: unknown position {name!r}; {nearest(name, expected)}")
