"""SAEs that were trained or converted here: contiguous arrays in HDF5, read in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.sae.formats import Sae


def facts_of(sae: Sae) -> dict[str, Any]:
    """What the artefact's header says about the SAE."""
    return {"sae": {k: v for k, v in asdict(sae).items() if k != "weights"}}


def read_sae(path: str | Path) -> Sae:
    """The SAE of an artefact. Raises BadInput with the stored reason for a tombstone."""
    header: Mapping[str, Any] = store.checked(path)
    if header["bad"]:
        raise BadInput(header["bad"])
    said: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in header["facts"]["sae"].items()
    }
    return Sae(weights=str(path), **said)
