"""What a protocol is not meant for, refused while the config is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.errors import ConfigError
from actprobe.plan import Target

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


def check_ignored(protocol: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    """Refuse `ignore` where the protocol ignores nothing."""
    for key in _COMMON:
        if entry[key] and protocol["split"]["groups"] != "ignore":
            raise ConfigError(
                f"{where}: {protocol['name']} keeps groups together and follows a dataset's own "
                f"split; leave `{key}: {entry[key]}` out"
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
    if not texts.spec.get(column):
        return False
    facts = texts.args.get("facts")
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
    model = data["matrix"].args["model"]
    if protocol["bos"] == "added" and models.get(model, {}).get("prepend_bos") is False:
        raise ConfigError(
            f"{where}: {protocol['name']} is about activations after a beginning-of-sequence token, "
            f"and model {model} has `prepend_bos: false`; write `prepend_bos: auto` there, or use "
            "actprobe-1, which takes any"
        )
