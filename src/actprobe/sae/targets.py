"""From the config to SAE targets: latents per SAE and dataset, and SAEs to train or convert."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import SourceArgs, Target, only, target
from actprobe.config import Config, matching, nearest
from actprobe.config.saes import SAE
from actprobe.models import hooks
from actprobe.models.targets import STAGE as EXTRACTED
from actprobe.probes import tested
from actprobe.sae import checks
from actprobe.sae.records import (
    ConvertArgs,
    ConvertSpec,
    Identity,
    LatentArgs,
    LatentSpec,
    LatentTarget,
    MadeIdentity,
    MadePlace,
    Place,
    SaeTarget,
    TrainArgs,
    Training,
    TrainSpec,
    Untested,
)
from actprobe.sae.sources import locate

log = logging.getLogger(__name__)

VERSION = 3  # of latents
SAES_VERSION = 2  # of trained and converted SAEs

_DATASET = "dataset with these activations"

Vectors = Target[Any, SourceArgs]
# Model and site -> position -> dataset -> targets.
Activations = dict[tuple[str, str], dict[str, dict[str, list[Vectors]]]]

# The target that has to be made first if there is one, identity in the spec, place for the job.
Made = tuple[SaeTarget | None, Identity, Place]


def targets(config: Config, known: Mapping[str, list[Target]], memo: DigestMemo) -> list[Target]:
    """The latents that the config's `saes` ask for, and the SAEs that have to be made first.

    Raises ConfigError naming every entry with an unknown model, site, position or dataset, an SAE
    that is damaged or not supported, or one made for other activations. With `on_bad_dataset: skip`
    an SAE that cannot be used is no error: its latents will be tombstones.
    """
    activations: Activations = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for t in known.get("activations", []):
        activations[t.args.model, t.args.site][t.args.position][t.item].append(t)
    texts = {t.item: t for t in known.get("texts", [])}
    found: list[Target] = []
    faults: list[ConfigError] = []
    for name, settings in config.saes.items():
        try:
            found += _of_one(config, name, settings, activations, texts, memo)
        except ConfigError as e:
            faults.append(e)
    if faults:
        raise faults[0] if len(faults) == 1 else ConfigError("\n".join(map(str, faults)))
    return found


def _of_one(
    config: Config,
    name: str,
    settings: SAE,
    activations: Activations,
    texts: Mapping[str, Target],
    memo: DigestMemo,
) -> list[Target]:
    """The targets of one SAE: itself where it has to be made, and its latents."""
    where = f"saes.{name}"
    models = {*config.models, *(model for model, _ in activations)}
    if settings.model not in models:
        known_models = nearest(settings.model, models)
        raise ConfigError(f"{where}: unknown model {settings.model!r}; {known_models}")
    sites = {site: p for (model, site), p in activations.items() if model == settings.model}
    if settings.site not in sites:
        hint = nearest(settings.site, sites)
        raise ConfigError(
            f"{where}: no activations of {settings.model} at site {settings.site!r}; {hint}"
        )
    positions = sites[settings.site]
    vectors = positions[_position(where, settings, positions)]
    if settings.train:
        made, identity, place = _trained(config, name, settings, positions, texts)
    else:
        extracted = any(_extracted(t) for found in vectors.values() for t in found)
        made, identity, place = _given(config, name, settings, memo, extracted)
    chosen = matching(settings.datasets, vectors, where, _DATASET)
    xs = [only(vectors[d], where) for d in chosen]
    latents = [_latents(config, name, settings, identity, place, x, made) for x in xs]
    return [*([made] if made else []), *latents]


def _position(where: str, settings: SAE, positions: Mapping[str, Any]) -> str:
    vectors = [p for p in positions if p != "tokens"]
    position: str | None = settings.position
    if position is None and len(vectors) == 1:
        return vectors[0]
    if position is None or position not in (*vectors, *({"tokens"} & set(positions))):
        asked = f"no position {position!r}" if position else "position is not given"
        raise ConfigError(
            f"{where}: {asked}; {settings.model}/{settings.site} is kept at "
            f"{', '.join(vectors) or 'no position but tokens'}"
        )
    return position


def _extracted(activations: Vectors) -> bool:
    """Whether these are read from a model here, not by another tool."""
    return activations.stage == EXTRACTED


def _given(
    config: Config,
    name: str,
    settings: SAE,
    memo: DigestMemo,
    extracted: bool,
) -> Made:
    """A published SAE: the target of its conversion if it needs one, identity, and place."""
    source = locate(name, settings, memo)
    if source.bad:
        if config.on_bad_dataset != "skip":
            raise ConfigError(f"saes.{name}.source: {source.bad}")
        log.warning("saes.%s will be left out: %s", name, source.bad)
    elif source.sae is not None:
        checks.require_match(name, source.sae, config, extracted)
    if not source.convert:
        return None, source.identity, source.place
    made = target(
        config.cache_dir, "saes", SAES_VERSION, name, ConvertSpec(source=source.identity),
        loader=name, item=name, args=ConvertArgs(place=source.place), movable=True,
    )  # fmt: skip
    return made, MadeIdentity(key=made.key), MadePlace(artefact=made.path)


def _trained(
    config: Config,
    name: str,
    settings: SAE,
    positions: Mapping[str, Mapping[str, list[Vectors]]],
    texts: Mapping[str, Target],
) -> Made:
    where = f"saes.{name}.train"
    tokens = positions.get("tokens", {})
    if not tokens:
        raise ConfigError(
            f"{where}: needs activations of {settings.model}/{settings.site} at position tokens"
        )
    assert settings.train is not None
    told = settings.train.model_dump()
    chosen = matching(told.pop("datasets"), tokens, where, _DATASET)
    training = Training(**told)
    if training.k > training.width:
        raise ConfigError(f"{where}.k: {training.k} of {training.width} latents cannot fire")
    inputs = [only(tokens[d], where) for d in chosen]
    own = [texts.get(d) for d in chosen]
    tests = tested.tests(config, name, chosen) if training.rows == "untested" else {}
    tests = {d: of for d, of in tests.items() if d in texts}
    untested = Untested(
        texts=tuple(t.identity if t else None for t in own),
        tests=tuple(tuple(sorted(map(tested.digest, tests.get(d, [])))) for d in chosen),
    )
    spec = TrainSpec(
        train=training, tokens=tuple(t.key for t in inputs), untested=untested if tests else None
    )
    args = TrainArgs(
        tokens=tuple(t.path for t in inputs),
        texts=tuple(t.path if t else None for t in own),
        tests=tuple(tuple(tests.get(d, [])) for d in chosen),
        hook=hooks.hook_of(settings.site),
    )
    made = target(
        config.cache_dir, "saes", SAES_VERSION, name, spec,
        loader=name, item=name, inputs=[*inputs, *filter(None, own)], args=args,
        cost=sum(t.cost for t in inputs), movable=True,
    )  # fmt: skip
    return made, MadeIdentity(key=made.key), MadePlace(artefact=made.path)


def _latents(
    config: Config,
    name: str,
    settings: SAE,
    identity: Identity,
    place: Place,
    vectors: Vectors,
    made: SaeTarget | None,
) -> LatentTarget:
    spec = LatentSpec(
        sae=identity,
        activations=vectors.key,
        fold_decoder_norm=settings.fold_decoder_norm,
        product=settings.product,
    )
    args = LatentArgs(
        source=name,
        model=settings.model,
        site=settings.site,
        position=vectors.args.position,
        activations=vectors.path,
        sae=place,
        extracted=_extracted(vectors),
    )
    return target(
        config.cache_dir, "latents", VERSION, f"{name}/{vectors.item}", spec,
        loader=name, item=vectors.item, inputs=(vectors, *([made] if made else [])),
        args=args, cost=vectors.cost, movable=True,
    )  # fmt: skip
