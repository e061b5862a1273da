"""What the cache holds of an experiment, by names."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from actprobe.base import keys
from actprobe.cache.plan import Target

COLUMNS = ["stage", "name", "bytes", "key", "path"]


def listing(
    known: Mapping[str, Sequence[Target]], patterns: Sequence[str] = ("*",)
) -> pd.DataFrame:
    """One row per cached file whose `STAGE/NAME` or name matches one of the patterns, in the order of
    the stages. bytes: its size; key: first digits of its key, as in the file's name."""
    rows, seen = [], set()
    for stage, targets in known.items():
        for t in targets:
            if t.path in seen or t.stage != stage or not _matches(t, patterns):
                continue
            seen.add(t.path)
            if os.path.isfile(t.path):
                size = os.path.getsize(t.path)
                rows.append((stage, t.name, size, keys.short(t.key), t.path))
    return pd.DataFrame(rows, columns=COLUMNS)


def lines(table: pd.DataFrame) -> list[str]:
    """The listing for people: size, key, stage and name, path below."""
    found = [
        f"{r.bytes / 1e6:10,.2f} MB  {r.key}  {r.stage}/{r.name}\n{'':15}{r.path}"
        for r in table.itertuples()
    ]
    return [*found, f"{len(table)} files, {table['bytes'].sum() / 1e6:,.1f} MB"]


def _matches(t: Target, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(n, p) for n in (t.name, f"{t.stage}/{t.name}") for p in patterns)
