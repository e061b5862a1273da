"""What every target of the stage has, whatever it reads: its version, and what a fit is keyed by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from actprobe.probes import extensions
from actprobe.probes import protocol as protocols
from actprobe.probes.kinds import ONE_VS_REST
from actprobe.probes.records import AnyFit, FeatureTarget, FitTarget

FitT = TypeVar("FitT", FitTarget, FeatureTarget)

VERSION = 6  # what rows say, and how fits are made where no recipe says it


def fitted(entry: Mapping[str, Any], setting: str, method: str) -> dict[str, Any]:
    """What an entry of `probes` adds to the spec of its fits, besides what they read."""
    protocol = protocols.load(entry["protocol"])
    return {
        "protocol": protocol["name"],
        "recipe": protocols.digest(entry["protocol"], setting, method),
        "setting": setting,
        "method": method,
        "keep": keeps(entry, setting),
        "extensions": extensions.used(protocol["methods"][method]["family"]) or None,
        "labels": ONE_VS_REST if entry["one_vs_rest"] else None,
    }


def keeps(entry: Mapping[str, Any], setting: str) -> bool:
    """Whether the fits of a setting of an entry are kept.

    Where `keep` does not say it, those with one condition for each dataset and seed are: there are few
    of them. The grid of a paper has millions of others, and one of all modules of LoRAs thousands.
    """
    asked = entry["keep"]
    if asked is None:
        return "vary" not in protocols.load(entry["protocol"])["settings"][setting]
    return any(fnmatchcase(setting, pattern) for pattern in asked)


def same(a: AnyFit, b: AnyFit) -> bool:
    """Whether two targets are one fit, kept or not."""
    return a.name == b.name and replace(a.spec, keep=True) == replace(b.spec, keep=True)


def once(found: Iterable[FitT]) -> list[FitT]:
    """Each fit once; of entries that ask for the same one, that which keeps it counts."""
    of_name: dict[str, list[FitT]] = defaultdict(list)
    for t in found:
        known = of_name[t.name]
        for n, other in enumerate(known):
            if same(t, other):
                known[n] = t if t.spec.keep else other
                break
        else:
            known.append(t)
    return [t for known in of_name.values() for t in known]


def labelled(dataset: str, entry: Mapping[str, Any]) -> str:
    """A dataset in the name of a file, with what is made of its labels."""
    return f"{dataset}.{ONE_VS_REST}" if entry["one_vs_rest"] else dataset
