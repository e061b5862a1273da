"""From a config file and what a command sets in it to the config."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from actprobe.base.errors import ConfigError
from actprobe.base.keys import canonical_json
from actprobe.config import checkpoints
from actprobe.config.faults import faults
from actprobe.config.general import Config


def load_file(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML config file. Raises ConfigError with the place of a syntax error."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not valid YAML: {e}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of config keys")
    return content


def overridden(raw: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A config with what a command sets: `key=value`, `section.key=value`, `section={key: value}`.

    Values are YAML. Mappings are merged with what is there; anything else, and a list, replaces it.
    Raises ConfigError.
    """
    found = copy.deepcopy(dict(raw))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--config {setting}: expected KEY=VALUE")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise ConfigError(f"--config {setting}: the value is not valid YAML: {e}") from None
        _put(found, key.split("."), value, f"--config {setting}")
    return found


def _put(into: dict[str, Any], parts: list[str], value: Any, what: str) -> None:
    """Set a nested key. A name with dots in it, such as a model's, is found where it is there."""
    for n in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:n]), parts[n:]
        if key in into or n == 1:
            break
    if not rest:
        into[key] = _merged(into.get(key), value)
        return
    below = into.get(key)
    if below is None:
        below = into[key] = {}
    if not isinstance(below, dict):
        kind = "a list, which only a new list replaces" if isinstance(below, list) else "no mapping"
        raise ConfigError(f"{what}: {key} is {kind}")
    _put(below, rest, value, what)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {k: _merged(old.get(k), v) for k, v in new.items()}


def resolve(raw: Mapping[str, Any]) -> Config:
    """The complete config: checked, defaults filled in, sizes in bytes, a model for each checkpoint.

    Raises ConfigError listing every fault with its key, what was found and what was expected.
    """
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as e:
        raise ConfigError("config:\n  " + "\n  ".join(faults(e))) from None
    return checkpoints.expand(config)


def section(name: str, value: Any) -> Any:
    """One section of a config, as `resolve` gives it. Raises ConfigError."""
    return getattr(resolve({"experiment": name, name: value}), name)


def require_plain(value: Any, where: str) -> None:
    """Raise ConfigError for what YAML can say and a spec cannot hold: NaN, infinity, a date."""
    try:
        canonical_json(value)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{where}: {e}") from None
