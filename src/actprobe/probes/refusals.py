"""What a protocol is not meant for, refused while the config is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.cache.plan import Target
from actprobe.config import require_known
from actprobe.probes import feature_targets
from actprobe.probes import protocol as protocols
from actprobe.probes.kinds import BINARY, CONTINUOUS, MULTICLASS, kind_of
from actprobe.probes.methods import fits_kind
from actprobe.probes.needs import binary_only

# What a protocol of single rows ignores, by the key of `probes` that lets it: columns of a dataset, what
# the facts of its texts call them, and words.
_COMMON = {
    "groups": (
        ("group", "groups", "rows that belong together (`group`)"),
        ("pair", "pairs", "rows that belong together (`pair`)"),
        ("answers", "pairs", "rows that belong together (contrastive pairs)"),
    ),
    "split": (("split", "splits", "a split of its own (`split`)"),),
}
_DONE = {
    "groups": "would have some of them train and others test",
    "split": "would draw train and test rows from all of it",
}


def check_named(protocol: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    """Refuse settings and methods of an entry that the protocol does not have."""
    of = f"{where}: {protocol['name']}"
    for word in ("setting", "method"):
        for name in entry[f"{word}s"] or ():
            require_known(name, protocol[f"{word}s"], of, word)


def check_ignored(protocol: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    """Refuse `ignore` where the protocol ignores nothing."""
    for key in _COMMON:
        if entry[key] == "ignore" and protocol["split"].get("groups") != "ignore":
            raise ConfigError(
                f"{where}: {protocol['name']} keeps groups together and follows a dataset's own "
                f"split; leave `{key}: {entry[key]}` out"
            )


def check_of_collections(entry: Mapping[str, Any], where: str) -> None:
    """Refuse keys that are about LoRAs where the protocol reads texts."""
    given = [k for k in feature_targets.OWN if entry[k] is not None]
    given += ["columns"] if entry["columns"] != ["*"] else []
    given += ["split"] if entry["split"] not in (None, "ignore") else []
    if given:
        raise ConfigError(
            f"{where}: `{given[0]}` is for features of LoRA weights (as with lora-1); "
            f"{entry['protocol']} reads texts, whose labels, groups and splits are in `datasets`"
        )


def check_parted(
    protocol: Mapping[str, Any],
    entry: Mapping[str, Any],
    texts: Target,
    has_test_set: bool,
    where: str,
) -> None:
    """Refuse a dataset whose groups or split this protocol ignores, unless the entry says so."""
    if has_test_set:
        return
    for key, columns in _COMMON.items():
        found = [words for column, fact, words in columns if _has(texts, column, fact)]
        if found and not entry[key]:
            raise ConfigError(
                f"{where}: {texts.item} has {found[0]}, and {protocol['name']} {_DONE[key]}; use "
                f"actprobe-1, or write `{key}: ignore` in this entry of `probes`"
            )


def _has(texts: Target, column: str, fact: str) -> bool:
    """Whether rows of a dataset have something in common, as far as it is known yet."""
    if column not in texts.args.columns:
        return False
    facts = texts.args.facts
    if facts is None:
        return True
    return bool(facts[fact]) and (fact == "splits" or facts[fact]["largest"] > 1)


def check_bos(
    protocol: Mapping[str, Any],
    models: Mapping[str, Any],
    data: Mapping[str, Target],
    where: str,
) -> None:
    """Refuse a model that reads no beginning-of-sequence token where the protocol has one."""
    model = data["matrix"].args.get("model", "")
    if protocol["bos"] == "added" and models.get(model, {}).get("prepend_bos") is False:
        raise ConfigError(
            f"{where}: {protocol['name']} is about activations after a beginning-of-sequence token, "
            f"and model {model} has `prepend_bos: false`; write `prepend_bos: auto` there, or use "
            "actprobe-1, which takes any"
        )


def check_kind(
    recipe: Mapping[str, Any],
    method: str,
    setting: str,
    entry: Mapping[str, Any],
    data: Mapping[str, Target],
    where: str,
) -> bool:
    """Whether a method fits the labels of a dataset, as far as they are known.

    Raises ConfigError where the setting does not, or a method that the entry names.
    """
    facts = data["texts"].args.facts
    default = protocols.load(entry["protocol"])["methods"][method].get("default", True)
    only = default if isinstance(default, list) and not entry["methods"] else None
    if not facts:
        return only is None or BINARY in only
    if only is not None and (BINARY if entry["one_vs_rest"] else kind_of(facts)) not in only:
        return False
    kind, name = kind_of(facts), data["texts"].item
    classes = len(facts.get("classes") or ())
    if entry["one_vs_rest"]:
        if kind != MULTICLASS:
            raise ConfigError(
                f"{where}: one_vs_rest is for labels of several classes; those of {name} are {kind}"
            )
        return True
    if kind == BINARY:
        return True
    found = (
        f"the labels of {name} are continuous"
        if kind == CONTINUOUS
        else (f"{name} has {classes} classes")
    )
    remedy = ""
    if kind != CONTINUOUS:
        remedy = "; name one class with `positive` in `datasets`"
        if not protocols.tests_elsewhere(recipe):
            remedy += ", or write `one_vs_rest: true` here"
    if why := binary_only(recipe):
        raise ConfigError(
            f"{where}: {found}, and in {entry['protocol']}, {setting}, {why} of two classes{remedy}; "
            "actprobe-1 takes any labels in the setting normal"
        )
    fits = fits_kind(recipe["method"], kind)
    if not fits and entry["methods"]:
        fitting = [
            m
            for m, how in protocols.load(entry["protocol"])["methods"].items()
            if fits_kind(how, kind)
        ]
        raise ConfigError(
            f"{where}: {found}, which {method} does not fit; these do: {', '.join(fitting)}{remedy}"
        )
    return fits
