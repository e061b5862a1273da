"""Which LoRAs of a collection are of another base model than most of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actprobe.lora.index import Entry

_Kind = tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]  # modules, d_out, d_in


def mismatches(entries: Sequence[Entry]) -> list[str]:
    """Why a LoRA does not fit the others: another base model (a module of another shape than in most
    files, or none that the others have), or an id that stands twice."""
    shapes: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    kinds = Counter[_Kind]((e.modules, tuple(e.d_out), tuple(e.d_in)) for e in entries)
    for (names, d_out, d_in), n in kinds.items():
        for name, shape in zip(names, zip(d_out, d_in, strict=True), strict=True):
            shapes[name][shape] += n
    usual = {n: min(c, key=lambda s: (-c[s], s)) for n, c in shapes.items()}

    def why(kind: _Kind) -> str:
        for name, *shape in zip(*kind, strict=True):
            if tuple(shape) != usual[name]:
                return "W of {} is {} x {}, in most files {} x {}".format(
                    name, *shape, *usual[name]
                )
        return ""

    reasons = {kind: why(kind) for kind in kinds}
    fitting = Counter[tuple[str, ...]]()
    for kind, n in kinds.items():
        if kind[0] and not reasons[kind]:
            fitting[kind[0]] += n
    related = _largest_group(fitting)
    for kind in kinds:
        if kind[0] and not reasons[kind] and kind[0][0] not in related:
            reasons[kind] = f"no module in common with most files; it has {kind[0][0]}, …"
    seen = Counter(e.id for e in entries)
    return [
        f"{seen[e.id]} LoRAs have this id"
        if seen[e.id] > 1
        else reasons[e.modules, tuple(e.d_out), tuple(e.d_in)]
        for e in entries
    ]


def _largest_group(kinds: Mapping[tuple[str, ...], int]) -> set[str]:
    """Modules of the most files that are related: by a shared module, or through other files.

    kinds: number of files by modules.
    """
    groups: list[tuple[int, set[str]]] = []
    for names, n in kinds.items():
        own = set(names)
        met = [g for g in groups if not own.isdisjoint(g[1])]
        groups = [g for g in groups if own.isdisjoint(g[1])]
        groups.append((n + sum(m for m, _ in met), own.union(*(g for _, g in met))))
    return min(groups, key=lambda g: (-g[0], sorted(g[1])), default=(0, set()))[1]
