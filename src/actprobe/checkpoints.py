"""One model at many points of its training: `revision: [a, b]` of a config stands for a model each."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from actprobe.errors import ConfigError

PLACE = "{revision}"
_PATTERNS = ("probes", "top_contexts")  # sections whose `sources` name models


def expand(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which each checkpoint is a model `NAME@REVISION`, and entries that name NAME name all.

    In `source` and `subfolder` the word {revision} stands for the checkpoint, for checkpoints that
    lie in folders of their own; without it the revision is one of the hub. Raises ConfigError.
    """
    several: dict[str, list[str]] = {}
    models: dict[str, Any] = {}
    for name, model in config["models"].items():
        if isinstance(model["revision"], list):
            for revision in map(str, model["revision"]):
                called = f"{name}@{re.sub(r'[^A-Za-z0-9._-]', '_', revision)}"
                if called in models:
                    raise ConfigError(
                        f"models.{name}.revision: {revision!r} would be called {called}, as another "
                        "one is: leave one out, or write a second model"
                    )
                models[called] = _at(model, revision, f"models.{name}")
                several.setdefault(name, []).append(called)
        else:
            models[name] = model
    if not several:
        return dict(config)
    out = {**config, "models": models, "activations": []}
    for entry in config["activations"]:
        names = several.get(entry["model"], [entry["model"]])
        out["activations"] += [{**copy.deepcopy(entry), "model": n} for n in names]
    for section in _PATTERNS:
        out[section] = [
            {**e, "sources": _every(e["sources"], several)} if e.get("sources") else e
            for e in config.get(section) or []
        ]
    one = {f"saes.{k}.model": v.get("model") for k, v in (config.get("saes") or {}).items()}
    one |= {f"activations[{n}].minus": e["minus"] for n, e in enumerate(config["activations"])}
    for where, named in one.items():
        if named in several:
            raise ConfigError(
                f"{where}: {named} has {len(several[named])} checkpoints, and one model is expected: "
                f"write one of {', '.join(several[named])}"
            )
    return out


def _at(model: Mapping[str, Any], revision: str, where: str) -> dict[str, Any]:
    """The model's entry for one checkpoint."""
    source, below = model["source"], model["subfolder"]
    texts = [*([source] if isinstance(source, str) else source), below or ""]
    if not any(PLACE in t for t in texts):
        if not str(texts[0]).startswith("hub:"):
            raise ConfigError(
                f"{where}.revision: a list of checkpoints is for the hub; for folders of your own write "
                f"{PLACE} in source, as in runs/checkpoint-{PLACE}"
            )
        return {**copy.deepcopy(dict(model)), "revision": revision}
    filled = [t.replace(PLACE, revision) for t in texts]
    sources = filled[0] if isinstance(source, str) else filled[:-1]
    changes = {"source": sources, "subfolder": below and filled[-1], "revision": None}
    return {**copy.deepcopy(dict(model)), **changes}


def _every(patterns: Iterable[str], several: Mapping[str, list[str]]) -> list[str]:
    """Patterns of sources, one that begins with such a model's name for each of its checkpoints."""
    found: list[str] = []
    for pattern in patterns:
        name, slash, rest = pattern.partition("/")
        names = several.get(name, [name]) if slash else [name]
        found += [f"{n}{slash}{rest}" for n in names]
    return found
