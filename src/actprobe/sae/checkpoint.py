"""The state of a training run, so that one that was killed goes on where it stood."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.cache.store.files import out_of_space

_SECONDS = 30.0  # between two writes: the most a kill can cost


class Checkpoint:
    """Arrays and a JSON state in the unfinished part of an artefact with this key."""

    def __init__(self, part: str | Path, key: str):
        self._part, self._key = Path(part), key
        self._new = Path(f"{part}.new")
        self._new.unlink(missing_ok=True)  # what a kill while saving left
        self._written = time.monotonic()

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
        """Fill the arrays and return the state; None, with the arrays untouched, if there is none.

        What another key left, or what is not whole, counts as none.
        """
        try:
            with np.load(self._part, allow_pickle=False) as z:
                state: dict[str, Any] = json.loads(str(z["state"]))
                if state.pop("key") != self._key:
                    return None
                found = {name: z[name] for name in arrays}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        for name, value in found.items():
            arrays[name][...] = value
        return state

    def save(self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Keep this state instead of the last one, unless that is younger than half a minute."""
        if time.monotonic() - self._written < _SECONDS:
            return
        size = sum(a.nbytes for a in arrays.values())
        with out_of_space(self._part, size), open(self._new, "wb") as f:
            text = json.dumps({**state, "key": self._key})
            np.savez(f, **arrays, state=np.array(text))  # type: ignore[arg-type]
            f.flush()
            os.fsync(f.fileno())
        os.replace(self._new, self._part)
        self._written = time.monotonic()
