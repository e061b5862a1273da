"""Specs and args of targets: small frozen dataclasses, their JSON, and the way back."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any

from actprobe.base.errors import ActprobeError


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the spec and the args of a stage derive from.

    Fields hold what JSON can say: None, bool, int, float, str, tuples, mappings by str, and records.
    """

    # Until every room reads attributes.
    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return getattr(self, name, None) is not None


@dataclass(frozen=True, kw_only=True)
class Nothing(Record):
    """No fields: the spec of a file that is kept as it is, the args of a job that needs none."""


def plain(value: Any) -> Any:
    """A record as mappings, lists and scalars.

    A field that is None is left out: a key does not change when a stage gets a further option that is
    off.
    """
    if isinstance(value, Record):
        kind: Any = type(value)
        found = {name: getattr(value, name) for name in _names(kind)}
        return {k: plain(v) for k, v in found.items() if v is not None}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def build(kind: Any, value: Any) -> Any:
    """The value of a type hint from what `plain` made of it: a field that is left out is None."""
    if _is_record(kind) and isinstance(value, Mapping):
        return kind(**{name: build(hint, value.get(name)) for name, hint in _hints(kind).items()})
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        fits = [k for k in of if _fits(k, value)]
        return build(fits[0], value) if fits else value
    if origin is tuple and isinstance(value, (list, tuple)):
        each = of[:1] * len(value) if of[-1] is Ellipsis else of
        return tuple(build(k, v) for k, v in zip(each, value, strict=True))
    if isinstance(value, Mapping):
        return {k: build(of[1] if len(of) == 2 else Any, v) for k, v in value.items()}
    return value


def name_of(kind: type) -> str:
    """The words by which `type_of` finds a record's type again."""
    return f"{kind.__module__}:{kind.__qualname__}"


def type_of(name: str) -> type:
    """A record's type by its name. Raises ActprobeError for what is none of this package."""
    module, _, kind = name.partition(":")
    found = getattr(import_module(module), kind, None) if module.startswith("actprobe.") else None
    if not (isinstance(found, type) and issubclass(found, Record)):
        raise ActprobeError(
            f"the frozen plan names {name}, which is no type of this version; run again"
        )
    return found


def _fits(kind: Any, value: Any) -> bool:
    """Whether a member of a union is what a value was made of; records are tried first as mappings."""
    origin = typing.get_origin(kind) or kind
    if _is_record(origin):
        return isinstance(value, Mapping) and _hints(origin).keys() >= value.keys()
    if origin is tuple:
        return isinstance(value, (list, tuple))
    return origin is Any or not isinstance(origin, type) or isinstance(value, origin)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


@cache
def _hints(kind: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
