"""Values that are read into another form: sizes into bytes, folders into whole paths."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from actprobe.base.errors import ConfigError
from actprobe.config.kinds import said

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{u}i": 1024**n for n, u in enumerate("kmgt", 1)}


def parse_size(value: int | str, name: str = "size") -> int:
    """Bytes of a size such as 3000000, "3GB", "2.5 GiB". Raises ConfigError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    m = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?)b?\s*", str(value).lower())
    try:
        return int(float(m[1]) * _UNITS[m[2]])  # type: ignore[index]  # no match: not a size
    except (TypeError, ValueError, KeyError):
        raise ConfigError(
            f"{name}: {value!r}: expected a size: bytes, or e.g. 3GB, 512MiB"
        ) from None


def _size(value: Any) -> int:
    try:
        return parse_size(value)
    except ConfigError:
        raise said("expected a size: bytes, or e.g. 3GB, 512MiB") from None


def _folder(text: str) -> str:
    """A folder with `~` and variables put in."""
    found = os.path.expandvars(os.path.expanduser(text))
    if not found or "$" in found or set(found) & set("{}*?"):
        raise said(
            "expected a folder; `~` and variables that are set are put in, and "
            "`{`, `}`, `*`, `?` and `$` cannot be part of its name"
        )
    return os.path.normpath(found)


Size = Annotated[
    int, BeforeValidator(_size), WithJsonSchema({"type": ["integer", "string"]}, mode="validation")
]
Folder = Annotated[str, AfterValidator(_folder)]
