"""Where the numbers come from that a probe reads, and whether other numbers come from the same place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.cache.plan import Target, plain

# What a probe reads -> whether it is one vector of each row, or all tokens of a row.
OF_MODELS = ("activations", "pooled", "tokens", "latents", "token_latents")
OF_TOKENS = ("tokens", "pooled", "token_latents")
MARK = "_actprobe_identity"  # on a model that was loaded here
_OF_TEXTS = ("texts", "stage", "version")  # in the spec of activations: the rows, not their reading


@dataclass(frozen=True)
class Origin:
    """Where numbers come from.

    source: its name in the config; reads: what a method takes of it (`activations`, `tokens`,
    `latents`, `features`, `texts`, …); model, site, position: names, "" where there are none. as_read:
    what decides the numbers of a row: identity of the model, site, what the position means, settings of
    the tokens, dtype; {} where the numbers were made elsewhere. settings: the model's entry in the
    config; wheels: those that the model comes in; sae: name, identity and settings of an SAE, or None.
    """

    source: str
    reads: str
    model: str = ""
    site: str = ""
    position: str = ""
    as_read: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    wheels: Mapping[str, Any] = field(default_factory=dict)
    sae: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the model is: digests of its files, or a commit; {} where that is not known."""
        found: Mapping[str, Any] = self.as_read.get("model", {})
        return found

    @property
    def template(self) -> Any:
        """The chat settings that its texts are put through; None for bare texts."""
        return self.as_read.get("tokens", {}).get("chat")


def of_target(t: Target, config: Mapping[str, Any], known: Mapping[str, Target]) -> Origin:
    """The origin of the numbers in a target's artefact. known: targets by path."""
    args = t.args
    if t.stage == "texts":
        return Origin("texts", "texts")
    place: dict[str, Any] = {
        k: str(args.get(k) or "") for k in ("source", "model", "site", "position")
    }
    if "activations" in args:  # latents
        below = of_target(known[args["activations"]], config, known)
        settings = {k: v for k, v in config["saes"][t.loader].items() if k != "source"}
        sae = {"name": t.loader, "identity": t.spec["sae"], "settings": settings}
        return Origin(
            **place, reads="latents", as_read=below.as_read, settings=below.settings,
            wheels=below.wheels, sae=sae,
        )  # fmt: skip
    reads = "tokens" if place["position"] == "tokens" else "activations"
    if t.stage != "activations":
        return Origin(**place, reads=reads)
    as_read = {k: v for k, v in t.record.items() if k not in _OF_TEXTS}
    settings = config["models"][place["model"]]
    return Origin(
        **place, reads=reads, as_read=as_read, settings=settings, wheels=_wheels(config, settings)
    )


def _wheels(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The wheels that an entry of `models` names."""
    said = json.dumps(plain(settings))
    return {n: w for n, w in (config.get("wheels") or {}).items() if f"wheel:{n}/" in said}


@dataclass(frozen=True)
class Difference:
    """One way in which two origins differ, in words."""

    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.what}: the probe {self.ours}, the data {self.theirs}"


def differences(ours: Origin, theirs: Origin) -> list[Difference]:
    """How the place of other numbers differs from the one that a probe was fitted at.

    What one of them does not say (an imported probe knows no commit) is not compared.
    """
    found = []
    if ours.identity and theirs.identity:
        if plain(ours.identity) != plain(theirs.identity):
            found.append(Difference("model", called(ours), called(theirs)))
    elif ours.model and theirs.model and ours.model != theirs.model:
        found.append(Difference("model", ours.model, theirs.model))
    for what in ("site", "position"):
        a, b = (o.as_read.get(what, getattr(o, what)) for o in (ours, theirs))
        if a and b and plain(a) != plain(b):
            found.append(Difference(what, word(a), word(b)))
    tokens = [dict(plain(o.as_read.get("tokens", {}))) for o in (ours, theirs)]
    if all(tokens):
        chats = [t.pop("chat", None) for t in tokens]
        if chats[0] != chats[1]:
            found.append(Difference("template", *map(word, chats)))
        for key in sorted(tokens[0].keys() & tokens[1].keys()):  # some are of some positions alone
            a, b = (t[key] for t in tokens)
            if a != b:
                found.append(Difference(key, word(a), word(b)))
    a, b = (plain(o.sae["identity"]) if o.sae else None for o in (ours, theirs))
    if a != b and (a is None) == (b is None):
        found.append(Difference("SAE", word(a), word(b)))
    if ours.reads in ("features", "texts") and ours.source != theirs.source:
        found.append(Difference("source", ours.source, theirs.source))
    return found


def require_same(ours: Origin, theirs: Origin, override: str | None) -> list[str]:
    """Raise BadInput where other numbers do not come from where the probe's do, with both values.

    override: why they may be used all the same; then what differs is returned, to be recorded.
    """
    found = [str(d) for d in differences(ours, theirs)]
    return require_none(found, override, "these are not the numbers that the probe was fitted on")


def require_none(found: Sequence[str], override: str | None, what: str) -> list[str]:
    """Raise BadInput for what was found, unless an override says why it may be; then return it."""
    if found and not override:
        raise BadInput(
            f'{what}: {"; ".join(found)} (override="why" uses them all the same, and records it)'
        )
    return [f"{f} ({override})" for f in found]


def called(origin: Origin) -> str:
    """The model of an origin by its name and what tells it apart."""
    identity = plain(origin.identity)
    if "hub" in identity:
        return f"{origin.model} (hub:{identity['hub']} at {str(identity['revision'])[:12]})"
    return f"{origin.model} ({word(identity)})"


def word(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, str):
        return value
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:159]}…"
