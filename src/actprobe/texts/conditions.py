"""Conditions on the rows of a file: `where: {score: ">= 0.5", title: "~ ^Re:"}`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.texts.values import meaning

_WRITTEN = re.compile(r"\s*(<=|>=|==|!=|!~|=|<|>|~)(?![<>=!~]) ?(.*)", re.DOTALL)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """A comparison of a cell's text. `sign`: <, <=, >, >=, ==, !=, ~ (holds a match of the regular
    expression), !~ (holds none)."""

    sign: str
    value: str

    @property
    def numeric(self) -> bool:
        """Whether cells are compared by value: they must all be numbers then."""
        return self.sign in _ORDER and meaning(self.value)[0] == "number"

    def holds(self, cell: str) -> bool:
        """Whether a cell fulfils it. `numeric` ones need a cell that is a number."""
        if self.sign in ("~", "!~"):
            return (re.search(self.value, cell) is not None) == (self.sign == "~")
        if self.sign in ("==", "!="):
            return (meaning(cell) == meaning(self.value)) == (self.sign == "==")
        if self.numeric:
            return _ORDER[self.sign](Decimal(cell.strip()), Decimal(self.value.strip()))
        return _ORDER[self.sign](cell, self.value)

    def __str__(self) -> str:
        return f"{self.sign} {self.value}"


def written(where: Mapping[str, Any], name: str) -> dict[str, tuple[str, ...]]:
    """The conditions of a config as the spec holds them: column -> conditions, in one spelling.

    Raises ConfigError for what is no condition.
    """
    return {
        column: tuple(str(_read(c, f"{name}: where.{column}")) for c in _listed(given))
        for column, given in where.items()
    }


def conditions(said: Iterable[str]) -> list[Condition]:
    """The conditions of one column, as `written` gave them."""
    return [_read(c, "where") for c in said]


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _read(text: Any, where: str) -> Condition:
    m = _WRITTEN.fullmatch(str(text))
    if m is None:
        raise ConfigError(
            f"{where}: {text!r} is no condition; expected one of < <= > >= == != ~ !~ and a value, "
            f"such as {f'== {text}'!r} (`keep` lists values)"
        )
    sign = {"=": "=="}.get(m[1], m[1])
    if sign in ("~", "!~"):
        try:
            re.compile(m[2])
        except re.error as e:
            raise ConfigError(f"{where}: {m[2]!r} is no regular expression: {e}") from None
    return Condition(sign, m[2])
