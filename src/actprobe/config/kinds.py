"""What a value of a config can be: numbers, names, and values of several kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

NUMERIC = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")


def said(text: str) -> PydanticCustomError:
    """A fault in the words that the user reads, behind the place and the value."""
    return PydanticCustomError("said", "{text}", {"text": text})


def _number(value: Any) -> Any:
    """`value`, or the number that a text stands for: YAML 1.1 reads 1e-3 as text."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        if NUMERIC.fullmatch(value):
            return float(value)
    return value


def _each_once(values: list[Any]) -> list[Any]:
    twice = [v for n, v in enumerate(values) if v in values[:n]]
    if twice:
        raise said(f"{twice[0]!r} is there twice; expected each once")
    return values


EXPECTED: dict[str, str] = {}  # the words for a pattern


def spelled(pattern: str, expected: str) -> Any:
    """Text that a pattern fits, and how a message calls such text."""
    EXPECTED[pattern] = expected
    return Field(pattern=pattern)


NUMBER = BeforeValidator(_number)
Whole = Annotated[int, NUMBER]
Natural = Annotated[int, Field(ge=0), NUMBER]
Positive = Annotated[int, Field(ge=1), NUMBER]
TwoOrMore = Annotated[int, Field(ge=2), NUMBER]
Number = Annotated[float, Field(allow_inf_nan=False), NUMBER]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
Share = Annotated[float, Field(gt=0, lt=1), NUMBER]

Text = Annotated[str, Field(min_length=1)]
_WORDS = "letters, digits, `.`, `_` and `-`"
Name = Annotated[
    str,
    spelled(
        r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", f"a name of {_WORDS} that does not begin with `.` or `-`"
    ),
]
ModelName = Annotated[
    str,
    spelled(
        r"^[A-Za-z0-9_][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+)?$",
        f"a name of {_WORDS}, and `@REVISION` for one checkpoint",
    ),
]
Word = Annotated[
    str,
    spelled(r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", "a name of letters, digits, `_` and `-`"),
]
Role = Literal["system", "developer", "user", "assistant", "tool"]
T = TypeVar("T")
Patterns = Annotated[list[str], Field(min_length=1)]  # names, or what a shell would match them by
Once = Annotated[
    list[T], AfterValidator(_each_once), Field(json_schema_extra={"uniqueItems": True})
]

# A value of several kinds is `Annotated[AsText[A] | AsList[B], KIND]`: what is wrong with a list is
# then said of the list alone. Tags stand in pointed brackets, so that they are no keys.
AsText = Annotated[T, Tag("<text>")]
AsWhole = Annotated[T, Tag("<a whole number>")]
AsNumber = Annotated[T, Tag("<a number>")]
AsBool = Annotated[T, Tag("<true or false>")]
AsList = Annotated[T, Tag("<a list>")]
AsMapping = Annotated[T, Tag("<a mapping>")]
_TAGS = (
    (str, "<text>"),
    (bool, "<true or false>"),
    (int, "<a whole number>"),
    (float, "<a number>"),
    (list, "<a list>"),
    (Mapping, "<a mapping>"),
)


def _kind(value: Any) -> str:
    return next((tag for kind, tag in _TAGS if isinstance(value, kind)), "<something else>")


KIND = Discriminator(_kind)
TextOrWhole = Annotated[AsText[str] | AsWhole[int], KIND]
TextOrList = Annotated[AsText[str] | AsList[list[str]], KIND]
Label = Annotated[AsText[str] | AsWhole[int] | AsBool[bool], KIND]
