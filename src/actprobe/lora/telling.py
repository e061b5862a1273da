"""Which features tell of the files whose weights turned out unusable; light to import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

REFUSED = ["collection", "id", "reason"]  # columns of the table of what was left out


def telling(features: Iterable[str]) -> list[str]:
    """One representation per collection that knows the files whose weights turned out unusable:
    norm_only where it is made; flat_vec, which may be a tombstone, only where nothing else is."""
    names = {p: Path(p).name.partition(".")[0] for p in features}
    ordered = sorted(names, key=lambda p: {"flat_vec": 0, "norm_only": 2}.get(names[p], 1))
    return sorted({Path(p).parent: p for p in ordered if names[p] != "recipe_only"}.values())
