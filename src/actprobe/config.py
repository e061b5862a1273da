"""Reading and checking the config: YAML, schema, defaults, sizes; every message names the key."""

from __future__ import annotations

import copy
import difflib
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from actprobe import checkpoints
from actprobe.errors import ConfigError
from actprobe.flow.place import snakefile
from actprobe.keys import canonical_json

SCHEMAS = snakefile().parent / "workflow" / "schemas"

_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{u}i": 1024**n for n, u in enumerate("kmgt", 1)}


def parse_size(value: int | str, name: str = "size") -> int:
    """Bytes of a size such as 3000000, "3GB", "2.5 GiB". Raises ConfigError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    m = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?)b?\s*", str(value).lower())
    try:
        return int(float(m[1]) * _UNITS[m[2]])  # type: ignore[index]
    except (TypeError, ValueError, KeyError):
        raise ConfigError(
            f"{name}: {value!r} is not a size; expected bytes or e.g. 3GB, 512MiB"
        ) from None


@cache
def schema(name: str = "config") -> dict[str, Any]:
    """A JSON schema of `workflow/schemas` with its `$ref`s to other files put in place."""
    loaded = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))
    return _resolved(loaded)


def _resolved(node: Any) -> Any:
    if isinstance(node, dict):
        ref = node.get("$ref", "")
        if ref.endswith(".schema.yaml"):
            return copy.deepcopy(schema(ref.removesuffix(".schema.yaml")))
        return {k: _resolved(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_resolved(v) for v in node]
    return node


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" when a known word is close, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"expected one of: {shown}" if known else "none is defined"


def require_known(name: str, known: Iterable[str], where: str, word: str) -> None:
    """Raise ConfigError, with the nearest name, unless a name is among the known ones."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"{where} has no {word} {name!r}; {nearest(name, known)}")


def matching(patterns: Iterable[str], known: Iterable[str], where: str, word: str) -> list[str]:
    """The known names that fit one of these glob patterns, each once, in the order of the patterns.

    Raises ConfigError for a pattern that none fits, with the nearest name.
    """
    known = list(known)
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = fnmatch.filter(known, pattern)
        if not matched:
            raise ConfigError(f"{where}: no {word} matches {pattern!r}; {nearest(pattern, known)}")
        found.update(dict.fromkeys(matched))
    return list(found)


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


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The complete config: checked against the schema, defaults filled in, sizes in bytes.

    Raises ConfigError listing every fault with its key, what was found and what was expected.
    """
    from jsonschema import Draft202012Validator

    top = schema()
    config = _numbers(copy.deepcopy(dict(raw)), top)
    faults = sorted(Draft202012Validator(top).iter_errors(config), key=lambda e: list(e.path))
    if faults:
        lines = dict.fromkeys(line for e in faults for line in _explain(e))
        raise ConfigError("config:\n  " + "\n  ".join(lines))
    config = _filled(config, top)
    config["max_memory"] = parse_size(config["max_memory"], "max_memory")
    for key in ("cache_dir", "results_dir"):
        config[key] = _folder(config[key], key)
    return checkpoints.expand(config)


def _folder(text: str, key: str) -> str:
    """A folder with `~` and variables put in. Raises ConfigError for what cannot name one."""
    found = os.path.expandvars(os.path.expanduser(text))
    if not found or "$" in found or set(found) & set("{}*?"):
        raise ConfigError(
            f"{key}: {text!r}: expected a folder; `~` and variables that are set are put in, and "
            "`{`, `}`, `*`, `?` and `$` cannot be part of its name"
        )
    return os.path.normpath(found)


def _numbers(value: Any, node: Mapping[str, Any]) -> Any:
    """`value` with text that stands for a number made one, where the schema takes numbers alone.

    YAML 1.1 reads 1e-3 as text, and Snakemake's `--config` hands over text.
    """
    if isinstance(value, dict):
        properties, rest = node.get("properties", {}), node.get("additionalProperties")
        rest = rest if isinstance(rest, dict) else {}
        return {k: _numbers(v, properties.get(k, rest)) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v, node.get("items") or {}) for v in value]
    kinds = node.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else {*kinds}
    if isinstance(value, str) and kinds & {"number", "integer"} and "string" not in kinds:
        if "integer" in kinds and re.fullmatch(r"[+-]?[0-9]+", value):
            return int(value)
        if "number" in kinds and re.fullmatch(_NUMBER, value):
            return float(value)
    return value


def require_plain(value: Any, where: str) -> None:
    """Raise ConfigError for what YAML can say and a spec cannot hold: NaN, infinity, a date."""
    try:
        canonical_json(value)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{where}: {e}") from None


def _filled(value: Any, node: Mapping[str, Any]) -> Any:
    """`value` with the defaults of its schema node put in, all the way down."""
    if isinstance(value, dict):
        properties = node.get("properties", {})
        for key, sub in properties.items():
            if key not in value and "default" in sub:
                value[key] = copy.deepcopy(sub["default"])
        rest = node.get("additionalProperties")
        return {
            k: _filled(v, properties.get(k) or (rest if isinstance(rest, dict) else {}))
            for k, v in value.items()
        }
    if isinstance(value, list) and isinstance(node.get("items"), dict):
        return [_filled(v, node["items"]) for v in value]
    return value


def _alternatives(error: Any) -> list[str]:
    """Keys of which exactly one is wanted; empty where the error is about something else."""
    branches = error.validator_value if error.validator == "oneOf" else ()
    return [k for b in branches if "type" not in b for k in b.get("required", ())]


def _explain(error: Any) -> Iterable[str]:
    """User-facing lines for one jsonschema error."""
    where = ".".join(str(p) for p in error.absolute_path) or "(top level)"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                yield f"{where}: unknown key {key!r}; {nearest(key, known)}"
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield f"{where}: {key!r} is missing"
    elif (keys := _alternatives(error)) and not isinstance(error.instance, dict):
        return  # said as a wrong type
    elif keys and len(given := [k for k in keys if k in error.instance]) != 1:
        problem = "exclude each other" if given else "missing: give one of them"
        yield f"{where}: {' and '.join(map(repr, given or keys))} {problem}"
    elif error.validator in ("oneOf", "anyOf") and error.context:
        best = min(error.context, key=lambda e: (len(list(_explain(e))), -len(e.absolute_path)))
        yield from _explain(best)
    else:
        found = repr(error.instance)
        yield f"{where}: {error.message if len(found) < 80 else found[:80] + '… is not valid'}"
