"""From the config to differences: activations of one model minus those of another on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target, target
from actprobe.models.records import (
    ActivationTarget,
    DifferenceArgs,
    DifferenceSpec,
    DifferenceTarget,
)
from actprobe.models.targets import targets as activations

STAGE = "differences"
VERSION = 2
MINUS = "-minus-"  # between the names of the two models


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[DifferenceTarget]:
    """A difference for every activation artefact of entries that say `minus`.

    Its source is `{model}-minus-{other}/{site}.{position}`. Raises ConfigError for models that do not
    have the same sites.
    """
    found: dict[str, DifferenceTarget] = {}
    for n, entry in enumerate(config.get("activations") or []):
        if (other := entry.get("minus")) is None:
            continue
        where, name = f"activations[{n}]", entry["model"]
        if other == name:
            raise ConfigError(f"{where}.minus: {other} minus itself is nothing; name another model")
        own, taken = (
            {
                (t.item, t.args.site, t.args.position): t
                for t in activations(
                    {**config, "activations": [{**entry, "model": m, "minus": None}]}, known, memo
                )
            }
            for m in (name, other)
        )
        if lacking := [k for k in own if k not in taken]:
            raise ConfigError(
                f"{where}.minus: {name} has the site {lacking[0][1]}, and {other} does not: differences "
                "are taken between models of one architecture; name sites that both have"
            )
        for place, t in own.items():
            made = _target(config, t, taken[place])
            found[made.path] = made
    return list(found.values())


def _target(
    config: Mapping[str, Any], of: ActivationTarget, minus: ActivationTarget
) -> DifferenceTarget:
    model = f"{of.args.model}{MINUS}{minus.args.model}"
    site, position = of.args.site, of.args.position
    spec = DifferenceSpec(of=of.key, minus=minus.key, position=of.spec.position)
    args = DifferenceArgs(
        source=f"{model}/{site}.{position}", model=model, site=site, position=position,
        texts=of.args.texts, of=of.path, minus=minus.path,
    )  # fmt: skip
    return target(
        config["cache_dir"], STAGE, VERSION, f"{model}/{of.item}/{site}.{position}", spec,
        loader=model, item=of.item, inputs=(of, minus), cost=of.cost, movable=True, args=args,
    )  # fmt: skip
