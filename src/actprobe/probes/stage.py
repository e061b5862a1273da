"""What every target of the stage has, whatever it reads: its version, and what a fit is keyed by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.probes import extensions
from actprobe.probes import protocol as protocols
from actprobe.probes.kinds import ONE_VS_REST

VERSION = 4  # what rows say, and how fits are made where no recipe says it


def fitted(entry: Mapping[str, Any], setting: str, method: str) -> dict[str, Any]:
    """What an entry of `probes` adds to the spec of its fits, besides what they read."""
    protocol = protocols.load(entry["protocol"])
    spec = {
        "protocol": protocol["name"],
        "recipe": protocols.digest(entry["protocol"], setting, method),
        "setting": setting,
        "method": method,
    }
    if own := extensions.used(protocol["methods"][method]["family"]):
        spec["extensions"] = own
    if entry["one_vs_rest"]:
        spec["labels"] = ONE_VS_REST
    return spec


def labelled(dataset: str, entry: Mapping[str, Any]) -> str:
    """A dataset in the name of a file, with what is made of its labels."""
    return f"{dataset}.{ONE_VS_REST}" if entry["one_vs_rest"] else dataset
