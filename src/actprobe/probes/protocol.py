"""Protocols: named, frozen recipes of splits, probes, grids and metrics, kept as data.

A protocol is a YAML file; `grammar.py` says what may be in it. `extends` names
another protocol whose entries it inherits and overrides, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.config import faults, nearest, require_plain
from actprobe.probes.methods import families

FOLDER = Path(__file__).parent / "protocols"
CONTROL = "tree"  # the method that always reads the control recipe_only, too


def names() -> list[str]:
    """The protocols that come with the project."""
    return sorted(p.name.removesuffix(".yaml") for p in FOLDER.glob("*.yaml"))


@lru_cache
def load(name: str) -> dict[str, Any]:
    """The protocol of this name, or in this file when the name ends in .yaml, checked.

    Raises ConfigError with the place and what is wrong.
    """
    return _load(name, ())


def _load(name: str, above: tuple[str, ...]) -> dict[str, Any]:
    """above: the protocols that extend this one."""
    from pydantic import ValidationError

    from actprobe.probes.grammar import Protocol

    if not name.endswith(".yaml") and name not in names():
        raise ConfigError(f"unknown protocol {name!r}; {nearest(name, names())}")
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    try:
        protocol = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ConfigError(f"protocol {name}: {path} cannot be read: {e}") from e
    if isinstance(protocol, dict) and "extends" in protocol:
        base, chain = protocol.pop("extends"), (*above, name)
        if not isinstance(base, str):
            raise ConfigError(f"protocol {path}: extends: {base!r} is not the name of a protocol")
        if base in chain:
            raise ConfigError(f"protocol {path}: extends itself: {' → '.join((*chain, base))}")
        protocol = _merge(_load(base, chain), protocol)
    try:
        Protocol.model_validate(protocol)
    except ValidationError as e:
        raise ConfigError(f"protocol {path}: " + "\n  ".join(faults(e))) from None
    require_plain(protocol, f"protocol {path}")
    _check_families(protocol, path)
    _check_ranges(protocol, path)
    _check_features(protocol, path)
    _check_elsewhere(protocol, path)
    if protocol["name"] != path.name.removesuffix(".yaml"):
        raise ConfigError(f"protocol {path}: its name is {protocol['name']!r}, not the file's name")
    if path.parent != FOLDER and protocol["name"] in names():
        raise ConfigError(f"protocol {path}: {protocol['name']!r} is taken by a built-in protocol")
    return protocol


def _check_families(protocol: Mapping[str, Any], path: Path) -> None:
    for name, how in protocol["methods"].items():
        if how["family"] not in families():
            raise ConfigError(
                f"protocol {path}: methods.{name}.family: nobody has registered {how['family']!r}; "
                f"{nearest(how['family'], families())} (your own are registered by files that "
                "`extensions` of the config names)"
            )


def _check_ranges(protocol: Mapping[str, Any], path: Path) -> None:
    for name, setting in protocol["settings"].items():
        if "range" not in setting:
            continue
        low, high = setting["range"]
        outside = [v for v in (low, *setting["values"]) if not low <= v <= high]
        if outside:
            raise ConfigError(
                f"protocol {path}: settings.{name}: {outside[0]:g} is not in the range [{low:g}, "
                f"{high:g}]; the rows of every ratio are counted by this range: write "
                f"`range: [{min(low, high, *outside):g}, {max(low, high, *outside):g}]`"
            )


def tests_elsewhere(recipe: Mapping[str, Any]) -> bool:
    """Whether all rows of a dataset train and other datasets test; of a protocol, or a recipe of one."""
    return recipe["split"].get("groups") == "elsewhere"


def reads_features(protocol: Mapping[str, Any]) -> bool:
    """Whether a protocol is about features of LoRA weights; then all its methods are."""
    return any(how["reads"] == "features" for how in protocol["methods"].values())


def _check_features(protocol: Mapping[str, Any], path: Path) -> None:
    """Features and splits by shares with their own validation rows belong together."""
    reads = {how["reads"] == "features" for how in protocol["methods"].values()}
    shares = "kind" in protocol["split"]
    if len(reads) > 1:
        raise ConfigError(f"protocol {path}: methods that read features stand alone in a protocol")
    if reads != {shares} or shares != (protocol["validation"] == "split"):
        raise ConfigError(
            f"protocol {path}: methods that read features need a split with a `kind` and "
            "`validation: split`, and others cannot have them"
        )
    if not shares:
        return
    if any("vary" in s or "test_set" in s for s in protocol["settings"].values()):
        raise ConfigError(f"protocol {path}: settings of features have nothing to `vary`")
    if CONTROL not in protocol["methods"]:
        raise ConfigError(
            f"protocol {path}: methods needs a {CONTROL!r} (see lora-1), which reads the control "
            "recipe_only"
        )


def _check_elsewhere(protocol: Mapping[str, Any], path: Path) -> None:
    """Directions and baselines alone are tested on other datasets only; baselines are methods."""
    if tests_elsewhere(protocol):
        if "controls" not in protocol:
            raise ConfigError(
                f"protocol {path}: with `split: {{groups: elsewhere}}` `controls` are required, which "
                "say what other directions score"
            )
        if len(protocol["seeds"]) > 1:
            raise ConfigError(
                f"protocol {path}: seeds: with `split: {{groups: elsewhere}}` nothing but folds and "
                f"nulls is drawn: one seed, found {len(protocol['seeds'])}"
            )
        for name, how in protocol["methods"].items():
            if how["family"] != "direction" and how["reads"] != "texts":
                raise ConfigError(
                    f"protocol {path}: methods.{name}: with `split: {{groups: elsewhere}}` methods are "
                    f"of family direction or read texts, this one is of family {how['family']}"
                )
        for name, setting in protocol["settings"].items():
            if setting:
                raise ConfigError(
                    f"protocol {path}: settings.{name}: with `split: {{groups: elsewhere}}` a "
                    f"setting has no keys, found {', '.join(setting)}"
                )
    for name in protocol.get("baselines", []):
        if name not in protocol["methods"]:
            raise ConfigError(
                f"protocol {path}: baselines: no method {name!r}; {nearest(name, protocol['methods'])}"
            )


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        merged = {k: _merge(base[k], over[k]) if k in over else base[k] for k in base}
        return merged | {k: v for k, v in over.items() if k not in base}
    return over


def recipe(protocol: Mapping[str, Any], setting: str, method: str) -> dict[str, Any]:
    """What of a protocol decides the results of one method in one setting."""
    shared = ("seeds", "rows", "split", "validation", "interval", "select")
    how = {k: v for k, v in protocol["settings"][setting].items() if k != "methods"}
    probe = {k: v for k, v in protocol["methods"][method].items() if k != "default"}
    if "ks" in probe:
        probe["ks"] = how.get("ks", probe["ks"])
    how.pop("ks", None)
    found = {**{k: protocol[k] for k in shared if k in protocol}, "setting": how, "method": probe}
    if "controls" in protocol and probe["family"] == "direction":
        found["controls"] = protocol["controls"]
    return found


@cache
def digest(name: str, setting: str, method: str) -> str:
    """SHA-256 of the recipe: another method's grid does not change it."""
    return keys.spec_key(recipe(load(name), setting, method))
