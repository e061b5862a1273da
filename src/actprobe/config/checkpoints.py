"""One model at many points of its training: `revision: [a, b]` of a config stands for a model each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from actprobe.base.errors import ConfigError
from actprobe.config.general import Config
from actprobe.config.models import Model

PLACE = "{revision}"


def expand(config: Config) -> Config:
    """A config in which each checkpoint is a model `NAME@REVISION`, and entries that name NAME name all.

    In `source` and `subfolder` the word {revision} stands for the checkpoint, for checkpoints that
    lie in folders of their own; without it the revision is one of the hub. Raises ConfigError.
    """
    several: dict[str, list[str]] = {}
    models: dict[str, Model] = {}
    for name, model in config.models.items():
        if not isinstance(model.revision, list):
            models[name] = model
            continue
        for revision in map(str, model.revision):
            called = f"{name}@{re.sub(r'[^A-Za-z0-9._-]', '_', revision)}"
            if called in models:
                raise ConfigError(
                    f"models.{name}.revision: {revision!r} would be called {called}, as another "
                    "one is: leave one out, or write a second model"
                )
            models[called] = _at(model, revision, f"models.{name}")
            several.setdefault(name, []).append(called)
    if not several:
        return config
    _require_one({f"saes.{k}.model": v.model for k, v in config.saes.items()}, several)
    _require_one(
        {f"activations[{n}].minus": e.minus for n, e in enumerate(config.activations)}, several
    )
    return config.model_copy(
        update={
            "models": models,
            "activations": [
                entry.model_copy(update={"model": name})
                for entry in config.activations
                for name in several.get(entry.model, [entry.model])
            ],
            "probes": [
                e.model_copy(update={"sources": _every(e.sources, several)}) for e in config.probes
            ],
            "top_contexts": [
                e.model_copy(update={"sources": _every(e.sources, several)})
                for e in config.top_contexts
            ],
        }
    )


def _require_one(named: Mapping[str, str | None], several: Mapping[str, list[str]]) -> None:
    for where, name in named.items():
        if name is not None and name in several:
            raise ConfigError(
                f"{where}: {name} has {len(several[name])} checkpoints, and one model is expected: "
                f"write one of {', '.join(several[name])}"
            )


def _at(model: Model, revision: str, where: str) -> Model:
    """The model's entry for one checkpoint."""
    source, below = model.source, model.subfolder
    sources = [source] if isinstance(source, str) else source
    if not any(PLACE in t for t in (*sources, below or "")):
        if not sources[0].startswith("hub:"):
            raise ConfigError(
                f"{where}.revision: a list of checkpoints is for the hub; for folders of your own write "
                f"{PLACE} in source, as in runs/checkpoint-{PLACE}"
            )
        return model.model_copy(update={"revision": revision})
    filled = [t.replace(PLACE, revision) for t in sources]
    return model.model_copy(
        update={
            "source": filled[0] if isinstance(source, str) else filled,
            "subfolder": below and below.replace(PLACE, revision),
            "revision": None,
        }
    )


def _every(patterns: Iterable[str], several: Mapping[str, list[str]]) -> list[str]:
    """Patterns of sources, one that begins with such a model's name for each of its checkpoints."""
    found: list[str] = []
    for pattern in patterns:
        name, slash, rest = pattern.partition("/")
        names = several.get(name, [name]) if slash else [name]
        found += [f"{n}{slash}{rest}" for n in names]
    return found
