"""Values of other tools' config files, each asked for by kind and range."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput, bad_file

DTYPES = ("float32", "float64", "float16", "bfloat16")
_REQUIRED: Any = object()


class Settings:
    """A mapping of a config file. Every getter raises BadInput naming the file, the key, what was
    found and what was expected.

    inside: the key of this mapping in the file, "" for the whole file.
    """

    def __init__(self, path: Path, values: Any, inside: str = ""):
        if not isinstance(values, Mapping):
            what = f"{inside} is {_shown(values)}" if inside else f"it holds {_shown(values)}"
            raise BadInput(f"{path}: {what}; expected a mapping of settings")
        self.path, self._values, self._inside = path, values, inside

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def refusal(self, key: str, expected: str) -> BadInput:
        """What to raise for the value of a key."""
        name = f"{self._inside}.{key}" if self._inside else key
        said = f"is {_shown(self._values[key])}" if key in self._values else "is missing"
        return BadInput(
            f"{self.path}: {name} {said}; expected {expected} (correct it, or fetch the file again)"
        )

    def unsupported(self, key: str, why: str) -> BadInput:
        """What to raise for a value that means something that is not done here."""
        name = f"{self._inside}.{key}" if self._inside else key
        return BadInput(f"{self.path}: not supported: {name} {_shown(self._values[key])}{why}")

    def whole(self, key: str, default: Any = _REQUIRED, least: int = 1) -> Any:
        """A whole number of at least `least`; 8.0 counts as one, true and "8" do not."""
        if key not in self and default is not _REQUIRED:
            return default
        value = self._values.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.refusal(key, f"a whole number of at least {least}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, above: float | None = None) -> Any:
        """A finite number of at least 0, or above a bound."""
        if key not in self and default is not _REQUIRED:
            return default
        value: Any = self._values.get(key)
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not plain or not math.isfinite(value) or value < 0 or (above == 0 and value == 0):
            bound = "above 0" if above == 0 else "of at least 0"
            raise self.refusal(key, f"a finite number {bound}")
        return float(value)

    def flag(self, key: str, default: Any = None) -> Any:
        """True or false."""
        value = self._values[key] if key in self else default
        if key in self and not isinstance(value, bool):
            raise self.refusal(key, "true or false")
        return value

    def word(self, key: str, default: Any = None) -> Any:
        """A text."""
        value = self._values[key] if key in self else default
        if key in self and not isinstance(value, str):
            raise self.refusal(key, "a text")
        return value

    def dtype(self, key: str = "dtype") -> None:
        """The precision that a config names only has to be one of floats: weights say their own."""
        value = self.word(key)
        if value is not None and str(value).removeprefix("torch.") not in DTYPES:
            raise self.refusal(key, f"one of {', '.join(DTYPES)}")

    def part(self, key: str) -> Settings:
        """The mapping at a key; an empty one where there is none."""
        inside = f"{self._inside}.{key}" if self._inside else key
        return Settings(self.path, self._values.get(key) or {}, inside)

    def raw(self, key: str) -> Any:
        """The value at a key as it is, None where there is none."""
        return self._values.get(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def read_json(path: Path) -> Settings:
    """A JSON file. Raises BadInput naming it."""
    try:
        return Settings(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as e:
        raise bad_file(path, e, "cannot be read as JSON: ") from None


def read_yaml(path: Path) -> Settings:
    """A YAML file. Raises BadInput naming it."""
    import yaml

    try:
        return Settings(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        raise bad_file(path, e, "cannot be read as YAML: ") from None
