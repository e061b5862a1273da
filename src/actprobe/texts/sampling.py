"""`sample`: some of a dataset's rows, the same ones in every run.

Each row has a rank that depends on the seed and on what the row says, not on its place: rows that
are added to a file or moved in it leave most of a sample as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from actprobe.texts.checks import Place
from actprobe.texts.records import SampleSpec
from actprobe.texts.values import shown


def choose(
    digests: Sequence[str], strata: Sequence[str | None], sample: SampleSpec, place: Place
) -> list[int]:
    """The rows of a sample, in the dataset's order.

    digests: of what each row says; strata: the value of each row by which the sample is stratified,
    the same everywhere where it is not. sample: `equal` takes as many rows of each value instead of
    its share. Shares are rounded by largest remainder, and every value has a row.
    Raises BadInput for a sample larger than the data, or than one value has rows.
    """
    n, by = sample.n, sample.by
    if n > len(digests):
        raise place.bad(
            f"sample: n: {n}, and there are {len(digests)} rows; expected {len(digests)} at most"
        )
    rows: dict[str | None, list[int]] = defaultdict(list)
    for i, value in enumerate(strata):
        rows[value].append(i)
    ordered = sorted(rows, key=lambda v: (v is not None, v or ""))
    if n < len(ordered):
        raise place.bad(
            f"sample: n: {n}, and {by} has {len(ordered)} different values; expected a row of each"
        )
    sizes = [len(rows[v]) for v in ordered]
    quotas = _equal(n, len(sizes)) if sample.equal else _shares(n, sizes)
    for value, quota, size in zip(ordered, quotas, sizes, strict=True):
        if quota > size:
            raise place.bad(
                f"sample: {quota} rows of each {by} of {n} rows in all, and {shown(value)} has {size}; "
                f"expected n: {size * len(sizes)} at most, or `equal: false`"
            )
    rank = _ranks(digests, sample.seed)
    found = [
        i
        for value, quota in zip(ordered, quotas, strict=True)
        for i in sorted(rows[value], key=rank.__getitem__)[:quota]
    ]
    return sorted(found)


def told(strata: Sequence[str | None], kept: Sequence[int], sample: SampleSpec) -> dict[str, Any]:
    """What the header says of a sample: the rows there were, and the rows taken of each value."""
    facts: dict[str, Any] = {"n": len(kept), "of": len(strata)}
    facts |= {"seed": sample.seed, "by": sample.by, "equal": sample.equal}
    if sample.by is not None:
        facts["rows"] = dict(sorted(Counter(str(strata[i]) for i in kept).items()))
    return facts


def _ranks(digests: Sequence[str], seed: int) -> list[bytes]:
    seen: Counter[str] = Counter()
    ranks = []
    for digest in digests:
        ranks.append(hashlib.sha256(f"{seed}\0{digest}\0{seen[digest]}".encode()).digest())
        seen[digest] += 1
    return ranks


def _equal(n: int, k: int) -> list[int]:
    return [n // k + (i < n % k) for i in range(k)]


def _shares(n: int, sizes: Sequence[int]) -> list[int]:
    """n by the shares of these sizes, by largest remainder, and at least 1 of each."""
    total = sum(sizes)
    quotas = [n * s // total for s in sizes]
    by_rest = sorted(range(len(sizes)), key=lambda i: (-(n * sizes[i] % total), i))
    for i in by_rest[: n - sum(quotas)]:
        quotas[i] += 1
    for i, q in enumerate(quotas):
        if q == 0:
            quotas[quotas.index(max(quotas))] -= 1
            quotas[i] = 1
    return quotas
